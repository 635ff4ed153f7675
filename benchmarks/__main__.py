"""Command line of the benchmarks: ``python -m benchmarks NAME``; ``--help`` says which there are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import bookkeeping, checkpoint, collector, sampler, startup


def main(arguments: list[str] | None = None) -> None:
    """Parses, measures, prints a table and, where asked, writes the same numbers as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    chosen = parser.add_subparsers(dest="benchmark", required=True)
    sampling = chosen.add_parser("sampler", help="the sampler and its FC against deform_conv2d")
    sampling.add_argument("--batch", type=int, default=8, help="images per call")
    saving = chosen.add_parser("checkpoint", help="what checkpoints cost a training in time and memory")
    for benchmark in (sampling, saving):
        benchmark.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
        benchmark.add_argument("--device", default="cpu", help="cpu or cuda")
    starting = chosen.add_parser("startup", help="the commands that import no torch")
    keeping = chosen.add_parser("bookkeeping", help="planning, submitting and watching 1,001 runs")
    collecting = chosen.add_parser("collector", help="the results of 10,000 runs, the first time and again")
    collecting.add_argument("--runs", type=int, default=10_000, help="run folders to make")
    collecting.add_argument("--epochs", type=int, default=300, help="rows of each run's log")
    for benchmark in (sampling, saving, starting, keeping, collecting):
        benchmark.add_argument("--repeats", type=int, default=7, help="timed calls of each, interleaved")
        benchmark.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args(arguments)

    report: sampler.Report | checkpoint.Report | startup.Report | collector.Report
    if options.benchmark == "sampler":
        report = sampler.measure(options.batch, options.repeats, options.threads, options.device)
        table = _sampler_table(report)
    elif options.benchmark == "checkpoint":
        report = checkpoint.measure(options.repeats, options.threads, options.device)
        table = _checkpoint_table(report)
    elif options.benchmark == "startup":
        report = startup.measure(options.repeats)
        table = _times_table(report, "From start to exit, seconds")
    elif options.benchmark == "collector":
        report = collector.measure(options.runs, options.epochs, options.repeats)
        table = _collector_table(report)
    else:
        report = bookkeeping.measure(options.repeats)
        table = _times_table(report, "1,001 runs on a Slurm that answers at once: from start to exit, seconds")
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    Console().print(table)


def _times_table(report: startup.Report, title: str) -> Table:
    table = Table(
        title=title,
        caption=f"{report.repeats} interleaved runs, load average before {report.load_average:.2f}",
    )
    for heading in ("command", "median", "fastest"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in report.rows:
        table.add_row(row.command, f"{row.median_s:.3f}", f"{row.fastest_s:.3f}")
    return table


def _collector_table(report: collector.Report) -> Table:
    table = Table(
        title=f"Collecting {report.runs:,} runs of {report.epochs} epochs, {report.logs_mb:.0f} MB of logs",
        caption=f"Medians of {report.repeats} turns, {report.processors} processors, files in the system's cache, "
        f"load average before {report.load_average:.2f}; the peer on {report.sample} runs, extrapolated; "
        f"making the runs took {report.making_s:.0f} s; what is kept takes {report.pages_mb:.0f} MB",
    )
    for heading in ("", "call, s", "fastest, s", "processor, s", "whole process, s", "peak memory, MiB", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        costs = [f"{cost:.2f}" if cost is not None else "" for cost in (row.cpu_s, row.process_s)]
        peak = f"{row.peak_mib:.0f}" if row.peak_mib is not None else ""
        table.add_row(row.what, f"{row.collect_s:.2f}", f"{row.fastest_s:.2f}", *costs, peak, f"{row.ratio:.4f}")
    return table


def _checkpoint_table(report: checkpoint.Report) -> Table:
    table = Table(
        title=f"What one checkpoint takes from training, {report.device}",
        caption=f"Medians of {report.repeats} interleaved blocks of steps, {report.threads} threads, "
        f"torch {report.torch}, load average before {report.load_average:.2f}",
    )
    table.add_column("")
    for row in report.rows:
        table.add_column(f"{row.model}, {row.image_size} px", justify="right")
    interval = checkpoint.DEFAULT_SECONDS
    lines: dict[str, Callable[[checkpoint.Row], str]] = {
        "checkpoint, MB": lambda row: f"{row.checkpoint_mb:.0f}",
        "one step, s": lambda row: f"{row.step_s:.3f}",
        "added to the loop, s": lambda row: f"{row.background_s:.3f}",
        "added if written in the loop, s": lambda row: f"{row.blocking_s:.3f}",
        f"share of the default interval of {interval:.0f} s": lambda row: f"{100 * row.share:.2f} %",
        "peak memory without checkpoints, MiB": lambda row: f"{row.peak_without_mib:.0f}",
        "peak memory with them, MiB": lambda row: f"{row.peak_background_mib:.0f}",
        "peak memory if written in the loop, MiB": lambda row: f"{row.peak_blocking_mib:.0f}",
    }
    for name, value in lines.items():
        table.add_row(name, *(value(row) for row in report.rows))
    return table


def _sampler_table(report: sampler.Report) -> Table:
    table = Table(
        title=f"Sampling and its FC against deform_conv2d, forward and backward, batch {report.batch}, {report.device}",
        caption=f"Medians of {report.repeats} interleaved calls in ms, {report.threads} threads, torch {report.torch}, "
        f"load average before {report.load_average:.2f}",
    )
    for heading in ("map", "channels", "S", "axis", "atm", "deform", "ratio", "fastest"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(
            f"{row.size} x {row.size}",
            str(row.channels),
            str(row.sharing),
            row.axis,
            f"{row.atm_ms:.2f}",
            f"{row.deform_ms:.2f}",
            f"{row.ratio:.3f}",
            f"{row.fastest_ratio:.3f}",
        )
    return table


if __name__ == "__main__":
    main()
