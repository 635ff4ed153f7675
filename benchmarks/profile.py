"""Where a training step spends its time: by operator and by module, forward and backward, and the bytes it moves."""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.choices import positive
from benchmarks.networks import autocast, build, known_model, random_batch
from benchmarks.timing import Conditions, add_inputs, add_machine, conditions

COPIED_BYTES = 2**28
PHASES = ("forward", "backward")
OUTSIDE = "outside operators"  # Python, autograd
MODULE = "module "  # begins the names of the profiler's ranges


@dataclass(frozen=True)
class ProfiledPart:
    """An operator or module in one phase of the fastest step. share: of the phase's time. Of operators: calls, 1e9
    bytes of inputs and outputs, and the ratio of that rate to a copy's; None for views and modules."""

    phase: str
    kind: str
    name: str
    ms: float
    share: float
    calls: int | None
    gbytes: float | None
    copy_share: float | None


@dataclass(frozen=True)
class ProfileReport(Conditions):
    """``ms``: of each phase. ``copy_gb_per_s``: 1e9 bytes per second that a copy of 256 MiB reads and writes."""

    network: str
    batch: int
    image: int
    dtype: str
    shown: int
    copy_gb_per_s: float
    ms: dict[str, float]
    rows: list[ProfiledPart]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the batch, and the number of operators and modules that the table shows."""
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    parser.add_argument("--shown", type=positive, default=12, help="operators and modules in the table of each phase")
    add_inputs(parser)
    add_machine(parser)


def measure(options: argparse.Namespace) -> ProfileReport:
    """Profiles ``repeats`` steps and reports the fastest forward and the fastest backward pass."""
    with conditions(options) as (device, machine):
        network = build(options.model, options.image, device, checked=False).module.train()
        images, classes = random_batch(options.batch, options.image, device)

        def forward() -> Tensor:
            with autocast(device, options.dtype):
                return nn.functional.cross_entropy(network(images), classes)

        forward().backward()  # compiles and warms up
        moved = _bytes(forward)
        copy = _copy_rate(device)
        best: dict[str, Divided] = {}
        for _ in range(options.repeats):
            network.zero_grad(set_to_none=True)
            copy = max(copy, _copy_rate(device))
            for phase, divided in _profiled(network, forward, moved, device).items():
                if phase not in best or divided.seconds < best[phase].seconds:
                    best[phase] = divided
    rows = []
    for phase, divided in best.items():
        for (kind, name), (part_s, calls) in sorted(divided.parts.items(), key=lambda item: -item[1][0]):
            gbytes = divided.moved[name] / 1e9 if kind == "operator" and divided.moved[name] else None
            rows.append(
                ProfiledPart(
                    phase=phase,
                    kind=kind,
                    name=name,
                    ms=1e3 * part_s,
                    share=part_s / divided.seconds,
                    calls=calls if kind == "operator" and name != OUTSIDE else None,
                    gbytes=gbytes,
                    copy_share=gbytes / part_s / copy if gbytes else None,
                )
            )
    return ProfileReport(
        **vars(machine),
        network=options.model,
        batch=options.batch,
        image=options.image,
        dtype=options.dtype,
        shown=options.shown,
        copy_gb_per_s=copy,
        ms={phase: 1e3 * divided.seconds for phase, divided in best.items()},
        rows=rows,
    )


@dataclass(frozen=True)
class Divided:
    """A phase: (kind, name) → seconds and calls of its operators and modules, and bytes moved by operator."""

    seconds: float
    parts: dict[tuple[str, str], tuple[float, int]]
    moved: Counter[str]


class _Moved(TorchDispatchMode):
    """Counts the bytes of the inputs and outputs of every operator that makes new values."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        inputs, outputs = ([t for t in tree_leaves(part) if isinstance(t, Tensor)] for part in ((args, kwargs), result))
        known = {t.untyped_storage().data_ptr() for t in inputs}
        is_view = all(t.untyped_storage().data_ptr() in known for t in outputs) and not function._schema.is_mutable
        size = 0 if is_view else sum(t.numel() * t.element_size() for t in [*inputs, *outputs])
        self.bytes[function._schema.name] += size
        return result


def _bytes(forward: Callable[[], Tensor]) -> dict[str, Counter[str]]:
    """Bytes by operator in each phase of a step."""
    counts = {phase: _Moved() for phase in PHASES}
    with counts["forward"]:
        loss = forward()
    with counts["backward"]:
        loss.backward()
    return {phase: count.bytes for phase, count in counts.items()}


def _copy_rate(device: torch.device) -> float:
    """1e9 bytes per second, read and written."""
    source, target = torch.empty(2, COPIED_BYTES, dtype=torch.uint8, device=device)
    target.copy_(source)
    _wait(device)
    start = perf_counter()
    target.copy_(source)
    _wait(device)
    return 2 * COPIED_BYTES / (perf_counter() - start) / 1e9


def _profiled(
    network: nn.Module, forward: Callable[[], Tensor], moved: dict[str, Counter[str]], device: torch.device
) -> dict[str, Divided]:
    """One step, divided among operators and modules."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    seconds = {}
    with profile(activities=activities) as profiler, _named_modules(network):
        for phase in PHASES:
            start = perf_counter()
            with record_function(phase):
                if phase == "forward":
                    loss = forward()
                else:
                    loss.backward()
                _wait(device)
            seconds[phase] = perf_counter() - start
    return _divided(profiler.events(), seconds, moved, device)


@contextmanager
def _named_modules(network: nn.Module) -> Iterator[None]:
    """Names each module's part of the profile. Classes are patched, since a module with hooks takes other paths."""
    names = {id(module): re.sub(r"\b\d+\b", "*", path) for path, module in network.named_modules() if path}

    def named(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with record_function(MODULE + names.get(id(self), type(self).__name__)):
                return forward(self, *args, **kwargs)

        return call

    patches = [patch.object(cls, "forward", named(cls.forward)) for cls in {type(m) for m in network.modules()}]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _divided(
    events: Any, seconds: dict[str, float], moved: dict[str, Counter[str]], device: torch.device
) -> dict[str, Divided]:
    """Gives the time of every operator to itself, and to the innermost module that called it.

    In the backward pass the module is that of the forward operator with the same sequence number. An operator that
    others call is a part of these, with its bytes.
    """
    on_gpu = device.type == "cuda"
    in_phase = [(event, phase) for event in events if _is_operator(event) and (phase := _phase(event))]
    forward = [event for event, phase in in_phase if phase == PHASES[0] and event.sequence_nr >= 0]
    modules = {event.sequence_nr: _module(event) for event in forward}
    divided = {phase: Divided(seconds[phase], {}, Counter()) for phase in PHASES}
    calls: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # phase, operator → of the outermost operators
    for event, phase in in_phase:
        callers = [parent for parent in _ancestors(event) if _is_operator(parent)]
        outermost = callers[-1] if callers else event
        if event.name in moved[phase] and not any(caller.name in moved[phase] for caller in callers):
            calls[phase, event.name][outermost.name] += 1
        if callers:
            continue
        time_s = (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6
        module = _module(event) if phase == PHASES[0] else modules.get(_backward_number(event), "")
        for key in (("operator", event.name), ("module", module or "the network itself")):
            total, count = divided[phase].parts.get(key, (0.0, 0))
            divided[phase].parts[key] = (total + time_s, count + 1)
    for (phase, name), outermost_calls in calls.items():
        for outer, count in outermost_calls.items():
            divided[phase].moved[outer] += moved[phase][name] * count // outermost_calls.total()
    for phase in divided.values():
        inside = sum(time_s for (kind, _), (time_s, _) in phase.parts.items() if kind == "operator")
        phase.parts["operator", OUTSIDE] = (max(0.0, phase.seconds - inside), 0)
    return divided


def _ancestors(event: Any) -> Iterator[Any]:
    while (event := event.cpu_parent) is not None:
        yield event


def _is_operator(event: Any) -> bool:
    return "::" in event.name and not event.name.startswith("autograd::")


def _phase(event: Any) -> str | None:
    return next((parent.name for parent in _ancestors(event) if parent.name in PHASES), None)


def _module(event: Any) -> str:
    names = (parent.name for parent in _ancestors(event))
    return next((name.removeprefix(MODULE) for name in names if name.startswith(MODULE)), "")


def _backward_number(event: Any) -> int:
    return next(
        (p.sequence_nr for p in _ancestors(event) if p.name.startswith("autograd::") and p.sequence_nr >= 0), -1
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(report: ProfileReport) -> Table:
    """The most expensive operators and modules of each phase."""
    phases = ", ".join(f"{phase} {ms:.0f} ms" for phase, ms in report.ms.items())
    shown = Table(
        title=f"A training step of {report.network}, batch {report.batch}, {report.image} px, {report.dtype}, "
        f"{report.device}: {phases}",
        caption=f"The fastest of {report.caption()}; a copy moves {report.copy_gb_per_s:.1f} GB/s; the bytes are "
        "those of inputs and outputs",
    )
    for heading in ("", "", "", "ms", "share", "calls", "GB", "of a copy"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for phase in PHASES:
        for kind in ("operator", "module"):
            rows = [row for row in report.rows if (row.phase, row.kind) == (phase, kind)][: report.shown]
            for row in rows:
                shown.add_row(
                    phase,
                    kind,
                    row.name,
                    f"{row.ms:.1f}",
                    f"{100 * row.share:.1f} %",
                    f"{row.calls}" if row.calls else "",
                    f"{row.gbytes:.3f}" if row.gbytes else "",
                    f"{100 * row.copy_share:.0f} %" if row.copy_share else "",
                    end_section=row is rows[-1],
                )
    return shown
