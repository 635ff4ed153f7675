"""Command line of the benchmarks: ``python -m benchmarks NAME``; ``--help`` says which there are."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from benchmarks import (
    bookkeeping,
    checkpoint,
    collector,
    loader,
    memory,
    mixer,
    model,
    resolution,
    sampler,
    startup,
)
from benchmarks.choices import one_of, positive
from errors import ConfigError, SuiteError

# each with its own `add_arguments(parser)`, `measure(options)` and `table(report)`
MODULES = (sampler, mixer, model, memory, resolution, loader, checkpoint, startup, bookkeeping, collector)
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print its usage as well; here every refusal is one line."""
        raise ConfigError(message)


def main(arguments: list[str] | None = None) -> int:
    """Parses, measures, prints a table and, where asked, writes the same numbers as JSON. Returns the exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        benchmark = BENCHMARKS[options.benchmark]
        report = benchmark.measure(options)
    except SuiteError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    Console().print(benchmark.table(report))
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one benchmark. Raises ConfigError for an unknown name or value."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    chosen = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        says = (benchmark.__doc__ or "").splitlines()[0]
        its = chosen.add_parser(name, help=says, description=says)
        its.add_argument("--repeats", type=positive, default=7, help="timed turns of each, interleaved")
        its.add_argument("--json", type=Path, metavar="PATH", help="also write the measurements to this file")
        benchmark.add_arguments(its)
    if arguments and not arguments[0].startswith("-"):
        one_of("benchmark", BENCHMARKS)(arguments[0])
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():  # before anything is measured
        raise ConfigError(f"--json {options.json}: no such folder {options.json.parent}")
    return options


if __name__ == "__main__":
    sys.exit(main())
