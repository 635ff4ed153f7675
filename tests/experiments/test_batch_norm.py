"""Batch norm over the batch of two processes is that over the whole batch on one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from errors import ConfigError
from experiments.config import ROOT
from experiments.training import loop
from experiments.training.batch_norm import WholeBatchNorm, has_batch_norm, synchronise
from tests.experiments.processes import finish, frozen

SHARES = (3, 5)  # images of the two processes
CHANNELS = 6


KINDS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm2d(CHANNELS, momentum=0.3),
    "cumulative": lambda: nn.BatchNorm2d(CHANNELS, momentum=None),
    "without parameters": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "without statistics": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "timm's": lambda: BatchNormAct2d(CHANNELS, act_layer=nn.SiLU),
}


def norm_of(kind: str) -> nn.Module:
    """A batch norm with parameters and running statistics that are not its first ones."""
    torch.manual_seed(0)
    norm = KINDS[kind]()
    with torch.no_grad():
        for value in (*norm.parameters(), *(b for b in norm.buffers() if b.is_floating_point())):
            value.copy_(0.5 + torch.rand(value.shape))
    return norm


def whole_batch() -> tuple[list[Tensor], list[Tensor]]:
    """Of two steps: the images, far from mean 0, and the gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    shape = (sum(SHARES), CHANNELS, 4, 7)
    images = [3 + (1 + step) * torch.randn(shape, generator=generator) for step in range(2)]
    return images, [torch.randn(shape, generator=generator) for _ in range(2)]


def answers(norm: nn.Module, part: slice) -> dict[str, Tensor]:
    """What comes of two training steps on a part of the batch and of an evaluation after them."""
    kept: dict[str, Tensor] = {}
    for step, (images, gradient) in enumerate(zip(*whole_batch())):
        x = images[part].clone().requires_grad_()
        output = norm(x)
        output.backward(gradient[part])
        kept |= {f"output {step}": output.detach(), f"gradient {step}": x.grad}
    kept |= {f"gradient of {name}": weight.grad for name, weight in norm.named_parameters()}
    kept |= {f"state {name}": value.clone() for name, value in norm.state_dict().items()}
    kept["evaluation"] = norm.eval()(whole_batch()[0][0][part]).detach()
    return kept


def in_process(rank: int, folder: str) -> None:
    """Called in a process of its own, which has a share of the batch: saves the answers of every kind."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    part = slice(0, SHARES[0]) if rank == 0 else slice(SHARES[0], None)
    kept = {}
    for kind in KINDS:
        model = nn.Sequential(norm_of(kind))
        names = list(model.state_dict())
        synchronise(model)
        assert isinstance(model[0], WholeBatchNorm) and list(model.state_dict()) == names
        kept[kind] = answers(model[0], part)
    torch.save(kept, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    """The answers of two processes."""
    folder = tmp_path_factory.mktemp("shared")
    command = f"from {in_process.__module__} import in_process; import sys; in_process(int(sys.argv[1]), sys.argv[2])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, str(rank), str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    complaints = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_normalise_as_one_does(shared, kind):
    first, second = (answers_of_kinds[kind] for answers_of_kinds in shared)
    expected = answers(norm_of(kind), slice(None))
    assert first.keys() == second.keys() == expected.keys()
    for name, whole in expected.items():
        if name.startswith("state"):
            assert torch.equal(first[name], second[name]), name
            ours = first[name]
        elif name.startswith("gradient of"):
            ours = first[name] + second[name]
        elif name == "evaluation" and kind == "without statistics":
            continue  # of the images at hand, which are a part of the batch
        else:
            ours = torch.cat([first[name], second[name]])
        torch.testing.assert_close(ours, whole, rtol=2e-5, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_activation_and_the_drop_of_timms_batch_norm_stay():
    model = nn.Sequential(BatchNormAct2d(CHANNELS, act_layer=nn.SiLU, drop_layer=nn.Dropout2d))
    drop, act = model[0].drop, model[0].act
    synchronise(model)
    assert model[0].drop is drop and model[0].act is act
    x = torch.randn(2, CHANNELS, 3, 3)
    expected = nn.functional.silu(x / (1 + model[0].eps) ** 0.5)  # its statistics are still 0 and 1
    torch.testing.assert_close(model.eval()(x), expected)


def test_a_network_of_timms_keeps_its_names_and_its_parameters():
    model = timm.create_model("resnet10t", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, parameters, output = list(model.state_dict()), list(model.parameters()), model(images)
    synchronise(model)
    assert list(model.state_dict()) == before
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model(images), output)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(module, WholeBatchNorm) and not module.training for module in norms)


def test_a_batch_norm_of_another_kind_is_refused():
    class OwnNorm(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Conv2d(3, 4, 1), OwnNorm(4))
    assert has_batch_norm(model) and not has_batch_norm(model[0])
    with pytest.raises(ConfigError, match="OwnNorm"):
        synchronise(model)


@pytest.mark.slow
def test_a_network_with_batch_norm_learns_the_same_on_two_devices(tmp_path, small_scenes):
    settings = {**small_scenes, "model": "timm/resnet10t", "data.train_images": 21, "train.batch_size": 7}
    one, two = (frozen(tmp_path / str(n), {**settings, "machine.devices": n}) for n in (1, 2))
    loop.run(one)
    assert finish(two) == (0, "")
    for ours, theirs in zip(rows(one.path), rows(two.path), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
