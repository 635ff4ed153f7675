"""Command line of the benchmarks: ``python -m benchmarks sampler`` or ``startup``, ``--help`` says more."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import sampler, startup


def main(arguments: list[str] | None = None) -> None:
    """Parses, measures, prints a table and, where asked, writes the same numbers as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    chosen = parser.add_subparsers(dest="benchmark", required=True)
    sampling = chosen.add_parser("sampler", help="the sampler and its FC against deform_conv2d")
    sampling.add_argument("--batch", type=int, default=8, help="images per call")
    sampling.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    sampling.add_argument("--device", default="cpu", help="cpu or cuda")
    starting = chosen.add_parser("startup", help="the commands that import no torch")
    for benchmark in (sampling, starting):
        benchmark.add_argument("--repeats", type=int, default=7, help="timed calls of each, interleaved")
        benchmark.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args(arguments)

    report: sampler.Report | startup.Report
    if options.benchmark == "sampler":
        report = sampler.measure(options.batch, options.repeats, options.threads, options.device)
        table = _sampler_table(report)
    else:
        report = startup.measure(options.repeats)
        table = _startup_table(report)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    Console().print(table)


def _startup_table(report: startup.Report) -> Table:
    table = Table(
        title="From start to exit, seconds",
        caption=f"{report.repeats} interleaved runs, load average before {report.load_average:.2f}",
    )
    for heading in ("command", "median", "fastest"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in report.rows:
        table.add_row(row.command, f"{row.median_s:.3f}", f"{row.fastest_s:.3f}")
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
