"""Our own benchmarks with a goal for each of their numbers. At tiny shapes the numbers are measured and not judged."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from benchmarks import memory, mixer, model, resolution, sampler
from benchmarks.acceptance.outcomes import CheckedDevice, CheckResult
from benchmarks.timing import open_device

T, XT = "atmnet_t", "atmnet_xt"
DEFORM, CONVNEXT, SWIN = "atmnet_xt_deform", "convnext_tiny", "swin_tiny_patch4_window7_224"
# Times as fast as a peer, or shares, at least: on a CPU, and on a GPU, where deform_conv2d has kernels of its own.
GOALS = {
    "deform_conv2d": (6.0, 2.0),
    "bandwidth": (0.0, 0.5),  # of a large copy
    "inference product": (0.6, 0.25),
    "training deform": (4.0, 1.5),
    "peer": (1.2, 1.2),
}
MOST_PRODUCTS = 2.0  # times of four matrix products that a mixer takes
MOST_MEMORY = {"small batch": 0.6, "large batch": 0.5}  # of the network on deform_conv2d
MOST_PER_PIXEL = 1.25  # of the time at the first size


def sampled(place: CheckedDevice) -> list[CheckResult]:
    """Sampler and FC against deform_conv2d, and the sampler's bandwidth."""
    report = _measure(sampler, place, *_batch(place, cpu=8, gpu=128))
    slowest = max(report.rows, key=lambda row: row.ratio)
    where = f"times as fast as deform_conv2d, {slowest.size} x {slowest.size}, {slowest.axis}"
    last = report.rows[-1]
    outcomes = [
        _at_least("the slowest stage and axis", place, 1 / slowest.ratio, "deform_conv2d", where),
        _at_least("stage 4, joint", place, 1 / last.ratio, "deform_conv2d", "times as fast as deform_conv2d"),
    ]
    for row in report.rows:
        if row.copy_share is not None:
            name = f"share of a copy's bandwidth, {row.size} x {row.size}, {row.axis}"
            outcomes.append(_at_least(name, place, row.copy_share, "bandwidth", f"{row.gb_per_s:.0f} GB/s"))
    return outcomes


def mixed(place: CheckedDevice) -> list[CheckResult]:
    """The mixer against four matrix products."""
    report = _measure(mixer, place, *_batch(place, cpu=8, gpu=128))
    slowest = max(report.rows, key=lambda row: row.ratio)
    where = f"{slowest.size} x {slowest.size}, {slowest.phase}"
    return [_at_most("the slowest stage", place, slowest.ratio, MOST_PRODUCTS, f"of four products, {where}")]


def networks(place: CheckedDevice) -> list[CheckResult]:
    """T against peers of its accuracy, xT against the network on deform_conv2d and the large product."""
    names = ["atmnet_nano", "atmnet_nano_deform"] if place.tiny else [T, CONVNEXT, SWIN, XT, DEFORM]
    layout = ["--channels-last"] if place.on_gpu else []
    report = _measure(model, place, "--models", ",".join(names), *layout, *_batch(place, cpu=8, gpu=128))
    times = {(row.network, row.phase): row for row in report.rows}
    outcomes = []
    for phase in model.PHASES:
        for peer in () if place.tiny else (CONVNEXT, SWIN):
            ratio = times[peer, phase].median_s / times[T, phase].median_s
            outcomes.append(_at_least(f"{T} against {peer}, {phase}", place, ratio, "peer", "times as fast"))
    ours, deformed = names[-2:]
    row = times[ours, "inference"]
    outcomes.append(_at_least(f"{ours}, inference", place, row.share or 0.0, "inference product", "of the product"))
    ratio = times[deformed, "training step"].median_s / times[ours, "training step"].median_s
    what = f"{ours} against {deformed}, training step"
    outcomes.append(_at_least(what, place, ratio, "training deform", "times as fast"))
    return outcomes


def memory_of_a_step(place: CheckedDevice) -> list[CheckResult]:
    """xT's peak memory against that of the network on deform_conv2d, at a small and a large batch."""
    names = ["atmnet_nano", "atmnet_nano_deform"] if place.tiny else [XT, DEFORM]
    outcomes = []
    for (what, most), batch in zip(MOST_MEMORY.items(), (2,) if place.tiny else (8, 32)):
        report = _measure(memory, place, "--models", ",".join(names), "--batch", str(batch))
        detail = f"of {names[1]}, {report.rows[0].peak_mib:.0f} MiB"
        outcomes.append(_at_most(f"{what} of {batch}", place, report.rows[1].ratio, most, detail))
    return outcomes


def resolutions(place: CheckedDevice) -> list[CheckResult]:
    """Time per pixel from small images to large ones."""
    words = ["--model", "atmnet_nano", "--sizes", "32,64"] if place.tiny else ["--model", XT]
    report = _measure(resolution, place, *words)
    slowest = max(report.rows, key=lambda row: row.ratio)
    detail = f"of the time at {report.rows[0].image} px, {slowest.image} px"
    return [_at_most("the slowest size", place, slowest.ratio, MOST_PER_PIXEL, detail)]


def _measure(benchmark: ModuleType, place: CheckedDevice, *words: str) -> Any:
    """The report of a benchmark: on a GPU in bfloat16."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=place.repeats)
    benchmark.add_arguments(parser)
    dtype = "bfloat16" if place.on_gpu else "float32"
    threads = ["--threads", "1"] if place.tiny else []
    open_device(place.device_name)
    return benchmark.measure(parser.parse_args([*words, *threads, "--device", place.device_name, "--dtype", dtype]))


def _batch(place: CheckedDevice, cpu: int, gpu: int) -> list[str]:
    if place.tiny:
        return ["--batch", "2", "--image", "32"]
    return ["--batch", str(gpu if place.on_gpu else cpu)]


def _at_least(what: str, place: CheckedDevice, value: float, goal: str, detail: str) -> CheckResult:
    least = GOALS[goal][place.on_gpu]
    return CheckResult(what, None if place.tiny else value >= least, f"{value:.2f}, at least {least:g}: {detail}")


def _at_most(what: str, place: CheckedDevice, value: float, most: float, detail: str) -> CheckResult:
    return CheckResult(what, None if place.tiny else value <= most, f"{value:.2f}, at most {most:g}: {detail}")
