"""Command line of the benchmarks: ``python -m benchmarks NAME``; ``--help`` lists them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import output
from benchmarks import (
    acceptance,
    bookkeeping,
    checkpoint,
    collector,
    detection,
    loader,
    memory,
    mixer,
    model,
    profile,
    resolution,
    sampler,
    segmentation,
    startup,
)
from benchmarks.choices import one_of, positive
from errors import ConfigError, SuiteError

# Each has the functions `add_arguments(parser)`, `measure(options)` and `table(report)`.
MODULES = (
    sampler, mixer, model, memory, resolution, segmentation, detection, loader, checkpoint, startup, bookkeeping,
    collector, profile, acceptance,
)  # fmt: skip
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises ConfigError, which is printed as one line; argparse would also print its usage."""
        raise ConfigError(message)


def main(arguments: list[str] | None = None) -> int:
    """Runs one benchmark, prints its table and, with ``--json``, writes the same numbers. Returns the exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        benchmark = BENCHMARKS[options.benchmark]
        report = benchmark.measure(options)
    except SuiteError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    output.print_table(benchmark.table(report))
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return getattr(report, "exit_code", 0)  # 1 where an acceptance missed a line


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one benchmark. Raises ConfigError for an unknown name or value."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        description = (benchmark.__doc__ or "").splitlines()[0]
        subparser = benchmarks.add_parser(name, help=description, description=description)
        subparser.add_argument("--repeats", type=positive, default=7, help="timed turns of each, interleaved")
        subparser.add_argument("--json", type=Path, metavar="PATH", help="also write the measurements to this file")
        benchmark.add_arguments(subparser)
    if arguments and not arguments[0].startswith("-"):
        one_of("benchmark", BENCHMARKS)(arguments[0])
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():  # refused before anything is measured
        raise ConfigError(f"--json {options.json}: no such folder {options.json.parent}")
    return options


if __name__ == "__main__":
    sys.exit(main())
