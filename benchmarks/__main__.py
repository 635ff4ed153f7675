"""Command line of the benchmarks: ``python -m benchmarks sampler [--threads N] [--device D] [--json PATH]``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import sampler


def main(arguments: list[str] | None = None) -> None:
    """Parses, measures, prints a table and, where asked, writes the same numbers as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=["sampler"])
    parser.add_argument("--batch", type=int, default=8, help="images per call")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls per operator, interleaved")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    options = parser.parse_args(arguments)

    report = sampler.measure(options.batch, options.repeats, options.threads, options.device)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    Console().print(_table(report))


def _table(report: sampler.Report) -> Table:
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
