#!/usr/bin/env python3
"""The command line: parses, dispatches, prints. Every command imports only the rooms it needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from errors import ConfigError, RunFolderError, SuiteError, unknown

ROOT = Path(__file__).resolve().parent
if TYPE_CHECKING:
    from sweeps.plan import Plan

USAGE = """\
  python run.py experiment=NAME [key=value …]          one run, in the foreground
  python run.py sweep=NAME [key=value …] [--jobs N]    every run of a sweep on this machine; only what is missing
  python run.py sweep=NAME [key=value …] --slurm       submits what is missing to Slurm and is through
  python run.py price=NAME [--fresh]                   device-hours a sweep will cost, from a short probe of each set-up
  python run.py status=NAME                            what has become of a sweep's runs
  python run.py cancel=NAME                            takes its jobs back from Slurm
  python run.py logs=RUN                               the end of what a run has said
  python run.py report=NAME                            its table and figures, from whatever exists
  python run.py report=paper                           both papers on one page, from whatever exists
  python run.py collect=NAME into=LABEL                its results as tidy files under results/measured/
  python run.py complexity[=NAME]                      parameters and FLOPs beside the papers'
  python run.py offsets=RUN|FILE|SWEEP [key=value …]   what learned offsets do: statistics, histograms, overlays
  python run.py list                                   experiments, sweeps and reports, a line each
  python run.py doctor [experiment=NAME key=value …]   is this machine ready, and what to do where it is not"""

KEYS = """\
keys:
  model=nano|xt|t|s|b|l    the variant             seed=N, seeds=[0,1,2]   the seeds
  protocol=paper|tiny|smoke  of a sweep or report  arms=[zero,axial]       some arms of a sweep
  devices=N                processes per run, one per GPU or sharing the CPU's cores
  data.root=PATH           where the images are    runs_dir=PATH           where run folders are
  measured=LABEL           report from results/measured/LABEL instead of run folders; measured=all for report=paper
  experiment=NAME          of doctor: the run whose data is checked as well; of offsets=FILE: the recipe of its data
  images=N layer=layer_3_1 query=[0.5,0.5]         of offsets: how many images, and what is laid over some of them
  any other key of the schema (experiments/schema.py), e.g. train.epochs=5 model.offsets=token

start here: python run.py sweep=ablation_offsets protocol=smoke   (needs no data, minutes on a laptop)"""

COMMANDS = (
    "experiment",
    "sweep",
    "price",
    "status",
    "cancel",
    "logs",
    "report",
    "collect",
    "complexity",
    "offsets",
    "list",
    "doctor",
)

OPTIONS = {  # and the commands that take them
    "jobs": ("sweep",),
    "slurm": ("sweep", "price"),
    "max_parallel": ("sweep", "price"),
    "dry_run": ("experiment", "sweep"),
    "retry_failed": ("sweep",),
    "force": ("experiment", "sweep"),
    "fresh": ("price", "offsets"),
    "watch": ("status", "sweep", "logs"),
    "mixed": ("report", "offsets"),
    "check": ("report",),
    "note": ("collect",),
}


def main(words: list[str]) -> int:
    try:
        return dispatch(parse(words))
    except SuiteError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, e.g. `| head`
        return 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print its usage as well; here every refusal is one line."""
        raise ConfigError(message)


def parse(words: list[str]) -> argparse.Namespace:
    parser = build_parser()
    options, odd = parser.parse_known_intermixed_args(words)
    if odd:
        raise ConfigError(
            unknown("option", odd[0], [name for name in parser._option_string_actions if name[:2] == "--"])
        )
    if not options.words:
        raise ConfigError(f"which command? One of {', '.join(COMMANDS)}; --help says more")
    return options


def build_parser() -> Parser:
    parser = Parser(
        prog="run.py",
        usage="run.py COMMAND [key=value …] [options]",
        description="Reproduction and ablation suite for Active Token Mixer.\n\ncommands:\n" + USAGE,
        epilog=KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (sweep)")
    parser.add_argument("--slurm", action="store_true", help="by Slurm jobs instead of on this machine (sweep, price)")
    parser.add_argument("--max-parallel", type=int, metavar="N", help="Slurm jobs at a time (sweep and price --slurm)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="also start runs that failed before (sweep)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume runs though the code changed since, and mark them (experiment, sweep)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="measure again what is known from earlier (price, offsets)"
    )
    parser.add_argument("--watch", action="store_true", help="follow until nothing runs (status, sweep --slurm, logs)")
    parser.add_argument(
        "--mixed", action="store_true", help="average runs of different code or data, and say so (report, offsets)"
    )
    parser.add_argument("--check", action="store_true", help="compare committed pages with what is made now (report)")
    parser.add_argument("--note", default="", metavar="TEXT", help="what a reader should know of the results (collect)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")
    return parser


def dispatch(options: argparse.Namespace) -> int:
    command, _, name = options.words[0].partition("=")
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, COMMANDS))
    if not name and command not in ("list", "complexity", "doctor"):
        raise ConfigError(f"{command}=NAME: which one? `python run.py list` shows them")
    for option, takers in OPTIONS.items():
        if getattr(options, option) and command not in takers:
            goes_with = " and ".join(f"{taker}=" for taker in takers)
            raise ConfigError(f"--{option.replace('_', '-')} goes with {goes_with}, not with {command}")
    for option, number in (("--jobs", options.jobs), ("--max-parallel", options.max_parallel)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: must be at least 1")
    if command in ("list", "complexity") and len(options.words) > 1:
        raise ConfigError(f"{command} takes no {options.words[1]!r}")
    if command == "list":
        return show_list(options)
    if command == "complexity":
        return show_complexity(name, options)
    if command == "doctor":
        return show_doctor(name, options)
    from experiments.config import parse_overrides

    given = parse_overrides(options.words[1:])
    if command in ("sweep", "price", "status", "cancel", "logs"):
        from sweeps import commands

        if command == "logs":
            return commands.logs(name, only_runs_folder(given), options)
        act: Callable[[Plan, Path, argparse.Namespace], int] = getattr(commands, command)
        return act(*planned(name, given), options)
    act_on = {"experiment": experiment, "report": report, "collect": collect, "offsets": offsets}
    return act_on[command](name, given, options)


def experiment(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """One run in the foreground."""
    from experiments.config import read_site, resolve, write_yaml
    from experiments.data.layout import check_root
    from experiments.folder.parent import weights_of
    from experiments.folder.run_folder import RunFolder
    from experiments.identity import run_id
    from experiments.launch import leave, rank
    from sweeps.slurm.submissions import known

    site = read_site()
    runs_dir = runs_folder(given, site)
    config = resolve(name, given, site=site)
    if not options.dry_run or config.data.num_classes is None:
        check_root(config)
    folder = RunFolder(runs_dir / run_id(config))
    if options.dry_run:
        described = {"run": folder.id, "folder": str(folder.path), "config": config.as_dict()}
        print(json.dumps(described) if options.json else write_yaml(described), end="")
        return 0
    queued = known(runs_dir, [folder.id])[0].get(folder.id)
    if queued and queued.alive:
        raise RunFolderError(f"{folder.id} is in Slurm's queue as job {queued.id}; scancel it to run it here")
    if config.init and not folder.finished():
        weights_of(config.init, runs_dir)
    folder.freeze(config)
    if not folder.finished():
        from experiments.__main__ import start

        if (code := start(folder, options.force, console=True)) or rank() > 0:
            leave(code)
    summary = folder.finished()
    if options.json:
        print(json.dumps(summary))
    else:
        numbers = "  ".join(f"{metric} {value:.2f}" for metric, value in summary["metrics"].items())
        print(f"{folder.id}: {numbers}\n{folder.path}")
    return 0


def planned(name: str, given: dict[str, Any]) -> tuple[Plan, Path]:
    """The plan that the planning keys and overrides of a command line describe, and where its run folders are."""
    from experiments.config import read_site
    from sweeps.plan import load

    site = read_site()
    runs_dir = runs_folder(given, site)
    seeds = given.pop("seeds", None)
    if "seed" in given:
        seeds = [given.pop("seed")]
    arms = given.pop("arms", None)
    arms = [arms] if isinstance(arms, str) else arms
    if arms is not None and not isinstance(arms, list):
        raise ConfigError(f"arms={arms}: give a list of names, e.g. arms=[zero,axial]")
    return load(name, given.pop("protocol", "paper"), given, seeds, arms, site), runs_dir


def runs_folder(given: dict[str, Any], site: dict[str, Any]) -> Path:
    chosen = given.pop("runs_dir", None) or site.get("runs_dir") or "results/runs"
    return (ROOT / Path(str(chosen)).expanduser()).resolve()


def only_runs_folder(given: dict[str, Any]) -> Path:
    """For a command that takes no other word."""
    from experiments.config import read_site

    runs_dir = runs_folder(given, read_site())
    if given:
        raise ConfigError(f"logs=RUN takes runs_dir=PATH and nothing else, no {next(iter(given))!r}")
    return runs_dir


def report(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Table and figures, from run folders or from committed results."""
    from reports import commands

    def plan_of(sweep: str, words: dict[str, Any]) -> tuple[dict[str, Any], Path, Callable[[], dict[str, Any]]]:
        plan, runs_dir = planned(sweep, dict(words))
        return plan.as_dict(), runs_dir, lambda: waiting(plan, runs_dir)

    return commands.report(name, given, options, plan_of)


def waiting(plan: Plan, runs_dir: Path) -> dict[str, tuple[str, str]]:
    """(state, cause) of the runs that have no result yet, as Slurm and their processes see them."""
    from sweeps.commands import states

    return states(plan, runs_dir)


def collect(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The results of a sweep as tidy files that can be committed."""
    from datetime import date

    from reports.specification import COMPLEXITY
    from results import archive
    from results.collect import collect as collected_from

    label = given.pop("into", None)
    if name == COMPLEXITY:
        if label or given:
            raise ConfigError(f"collect={COMPLEXITY} counts models and takes no other word")
        return collect_counts(options)
    if not label:
        raise ConfigError("collect=NAME into=LABEL: under which name?")
    planning, runs_dir = planned(name, given)
    plan = planning.as_dict()
    collected = collected_from(plan, runs_dir)
    today = date.today().isoformat()
    files = archive.write(
        collected,
        archive.folder(str(label)),
        plan,
        title=f"{name}, protocol {planning.protocol}",
        date=today,
        note=options.note,
    )
    for warning in collected.warnings:
        print(f"run.py: {warning}", file=sys.stderr)
    print(json.dumps({"files": [str(f) for f in files]}) if options.json else "\n".join(map(str, files)))
    return 0


def offsets(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """What learned offsets do, in one run, in a weights file, or in all finished runs of a sweep."""
    from experiments.config import read_site
    from experiments.identity import is_file
    from measurements.offsets import source as offset_source
    from measurements.offsets.measure import measure, measure_all
    from reports.offsets import page, terminal
    from sweeps.logs import run_named
    from sweeps.plan import sweep_names

    wanted = offset_source.Wanted.taken_from(given)
    if name in sweep_names():
        planning, runs_dir = planned(name, given)
        configs = {run: each.config for run, each in planning.distinct().items()}
        sources = offset_source.of_sweep(configs, runs_dir)
        folders = measure_all(sources, wanted, options.fresh)
        plan, out = planning.as_dict(), runs_dir / "reports" / f"offsets-{name}-{planning.protocol}"
        summary, files = page.compare(plan, folders, out, options.mixed)
        if options.json:
            print(terminal.comparison_to_json(plan, summary, folders, files))
        else:
            terminal.show_comparison(plan, summary, folders)
    else:
        site = read_site()
        runs_dir = runs_folder(given, site)
        if is_file(name):
            source = offset_source.of_file(name, runs_dir, given, site)
        else:
            source = offset_source.of_run(run_named(runs_dir, name, sweep_names()), given, site)
        found, files = page.write(measure(source, wanted, options.fresh))
        print(terminal.to_json(found, files)) if options.json else terminal.show(found)
    if not options.json:
        print(f"{len(files)} files, first of all {files[0]}")
    return 0


def show_complexity(name: str, options: argparse.Namespace) -> int:
    """Parameters and FLOPs of every classification model and arm, counted, beside the papers'."""
    from reports.content import complexity
    from reports.formats.terminal import print_section

    models = complexity.rows(name or None)
    from measurements.complexity import count

    comparison = complexity.compare(count, models)
    if options.json:
        print(complexity.to_json(comparison))
    else:
        print_section(complexity.section(comparison))
    return 0


def collect_counts(options: argparse.Namespace) -> int:
    """Counts every model of the complexity table, for reports to show."""
    from measurements.complexity import architecture, count
    from reports.content import complexity
    from results import counts

    found: dict[tuple[str, int, str], float] = {}
    for row in complexity.rows():
        whole = zip(complexity.METRICS, count(row.model, row.kwargs, row.size))
        found |= {(row.label, 0, metric): number for metric, number in whole}
        for stage, numbers in enumerate(architecture(row.model, row.kwargs) if row.stages else [], 1):
            found |= {(row.label, stage, metric): number for metric, number in numbers.items()}
    file = str(counts.write(found))
    print(json.dumps({"files": [file]}) if options.json else file)
    return 0


def show_list(options: argparse.Namespace) -> int:
    """Experiments, sweeps and reports, with the first line of their files."""
    from experiments.config import RECIPES
    from reports.specification import COMPLEXITY
    from sweeps.plan import SWEEPS, headline

    folders = {"experiment": RECIPES, "sweep": SWEEPS, "report": ROOT / "reports" / "specs"}
    found = {
        kind: {path.stem: headline(path) for path in sorted(folder.glob("*.yaml"))} for kind, folder in folders.items()
    }
    if options.json:
        print(json.dumps(found))
        return 0
    for kind, entries in found.items():
        for entry, line in entries.items():
            print(f"{entry if entry == COMPLEXITY else f'{kind}={entry}':<30} {line}")
    return 0


def show_doctor(name: str, options: argparse.Namespace) -> int:
    """Whether this machine is ready, and what to do where it is not. Changes nothing."""
    from doctor.examination import examine
    from doctor.show import show

    if name:
        raise ConfigError(f"doctor takes no name; doctor experiment={name} checks what that run needs")
    return 0 if show(examine(options.words[1:], runs_folder), options.json) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
