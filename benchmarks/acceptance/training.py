"""What training does to a network, on the device: autocast, channels-last, compiling, loss scaling, DDP."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from atm import ATMNet, sampling
from atm.variants import VARIANTS
from benchmarks.acceptance.outcomes import CheckedDevice, CheckResult, distance, same_bits, within

TINY = {"dims": [16, 32], "depths": [1, 2], "mlp_ratios": 2, "offset_sharing": [2, 4], "offset_interval": 1}
NANO = {key: value for key, value in VARIANTS["nano"].items() if key != "drop_path"}
CLASSES = 10
# Between two orders of the same float32 sums, in logits and gradients of a network.
TOLERANCE = 1e-3


def autocast(place: CheckedDevice) -> list[CheckResult]:
    """Logits and gradients with our sampler under autocast against float64: no further away than with the formula."""
    outcomes = []
    exact = _results(_network(place).double(), _images(place).double())
    for dtype in (torch.bfloat16, torch.float16):
        distances = []
        for backend in ("auto", "reference"):
            sampling.use(backend)
            try:
                with torch.autocast(place.device.type, dtype):
                    results = _results(_network(place), _images(place))
            finally:
                sampling.use("auto")
            # of one tensor after the other, each of its own scale
            distances.append([distance(_scaled(a, b), _scaled(b, b)) for a, b in zip(results, exact, strict=True)])
        ours, formula = (sum(each) / len(each) for each in distances)
        name = str(dtype).removeprefix("torch.")
        detail = f"mean error {ours:.1e}, with the formula {formula:.1e}"
        outcomes.append(CheckResult(name, ours <= 1.5 * formula + 1e-3, detail))
    return outcomes


def channels_last(place: CheckedDevice) -> list[CheckResult]:
    """Logits and gradients of channels-last images and convolutions."""
    expected = _results(_network(place), _images(place))
    network = _network(place).to(memory_format=torch.channels_last)
    results = _results(network, _images(place).contiguous(memory_format=torch.channels_last))
    return [within("", results, expected, TOLERANCE)]


def compiled(place: CheckedDevice) -> list[CheckResult]:
    """Logits and gradients of the compiled network, in one graph."""
    network = _network(place, 1 if place.tiny else None)  # a CPU compiles for minutes
    expected = _results(network, _images(place))
    forward = torch.compile(network, fullgraph=True, dynamic=False)
    return [within("in one graph", _results(network, _images(place), forward), expected, TOLERANCE)]


def loss_scaling(place: CheckedDevice) -> list[CheckResult]:
    """float16 with a GradScaler: the loss falls, and a step with an infinite gradient changes no weight."""
    network, images = _network(place), _images(place)
    classes = torch.arange(len(images), device=place.device) % CLASSES
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(place.device.type, init_scale=2.0**10)
    losses = []
    for _ in range(5):
        with torch.autocast(place.device.type, torch.float16):
            loss = nn.functional.cross_entropy(network(images), classes)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    before, scale = [weight.clone() for weight in network.parameters()], scaler.get_scale()
    with torch.autocast(place.device.type, torch.float16):
        loss = nn.functional.cross_entropy(network(images), classes)
    scaler.scale(loss * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    kept = all(map(torch.equal, before, network.parameters())) and scaler.get_scale() < scale
    falls = losses[-1] < losses[0]
    return [
        CheckResult("the loss falls", falls, f"{losses[0]:.3f} to {losses[-1]:.3f} in five steps"),
        CheckResult("an infinite gradient", kept, "no weight changed" if kept else "a weight or the scale is wrong"),
    ]


def data_parallel(place: CheckedDevice) -> list[CheckResult]:
    """The gradients under DDP in a group of one process: NCCL on a GPU, gloo on the CPU."""
    backend = "nccl" if place.on_gpu else "gloo"
    expected = _results(_network(place), _images(place))
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            backend,
            init_method=f"file://{Path(folder) / 'store'}",
            rank=0,
            world_size=1,
            timeout=timedelta(seconds=60),
        )
        try:
            network = _network(place)
            forward = DistributedDataParallel(network, device_ids=[place.device] if place.on_gpu else None)
            results = _results(network, _images(place), forward)
        finally:
            dist.destroy_process_group()
    return [within(backend, results, expected, TOLERANCE)]


def repeated(place: CheckedDevice) -> list[CheckResult]:
    """The bits of logits and gradients under PyTorch's deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    try:
        runs = [_results(_network(place), _images(place)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    return [same_bits("", runs)]


def _network(place: CheckedDevice, stages: int | None = None) -> ATMNet:
    """The same random weights every time. Offsets reach over several tokens, as after training.

    stages: None for all.
    """
    torch.manual_seed(0)
    arguments = TINY if place.tiny else NANO
    cut = {key: value[:stages] if isinstance(value, list) else value for key, value in arguments.items()}
    network = ATMNet(**cut, num_classes=CLASSES)
    for name, parameter in network.named_parameters():
        if ".offsets.proj." in name:
            nn.init.normal_(parameter, std=0.2)
    return network.to(place.device)


def _images(place: CheckedDevice) -> Tensor:
    size = 32 if place.tiny else 96
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0)).to(place.device)


def _results(network: nn.Module, images: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """Logits, and the gradients of all parameters from random ones of the logits."""
    network.zero_grad(set_to_none=True)
    with _without_tf32():
        logits = (network if forward is None else forward)(images)
        with torch.autocast(images.device.type, enabled=False):
            cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
            (logits * cotangent).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [logits.detach(), *gradients]


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions on a GPU otherwise round float32 to 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _scaled(tensor: Tensor, by: Tensor) -> Tensor:
    return tensor.double() / by.double().abs().max().clamp(min=1e-12)
