#!/usr/bin/env python3
"""The command line: parses, dispatches, prints. Every command imports only the rooms it needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from errors import ConfigError, SuiteError, unknown

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
  python run.py collect=NAME into=LABEL                its results as tidy files under results/measured/
  python run.py complexity[=NAME]                      parameters and FLOPs beside the papers'
  python run.py list                                   experiments, sweeps and reports, a line each
  python run.py doctor [experiment=NAME key=value …]   is this machine ready, and what to do where it is not"""

KEYS = """\
keys:
  model=nano|xt|t|s|b|l    the variant             seed=N, seeds=[0,1,2]   the seeds
  protocol=paper|tiny|smoke  of a sweep or report  arms=[zero,axial]       some arms of a sweep
  devices=N                processes per run, one per GPU or sharing the CPU's cores
  data.root=PATH           where the images are    runs_dir=PATH           where run folders are
  measured=LABEL           report from results/measured/LABEL instead of run folders
  experiment=NAME          of doctor: the run whose data is checked as well
  any other key of the schema (experiments/config.py), e.g. train.epochs=5 model.offsets=token

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
    "list",
    "doctor",
)


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
    parser.add_argument("--slurm", action="store_true", help="submit to Slurm instead of running here (sweep)")
    parser.add_argument("--max-parallel", type=int, metavar="N", help="Slurm jobs at a time (sweep --slurm)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="also start runs that failed before (sweep)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume runs though the code changed since, and mark them (experiment, sweep)",
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is known from earlier (price)")
    parser.add_argument("--watch", action="store_true", help="follow until nothing runs (status, sweep --slurm, logs)")
    parser.add_argument(
        "--mixed", action="store_true", help="average runs of different code or data, and say so (report)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="what a reader should know of the results (collect)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, nothing else")
    return parser


def dispatch(options: argparse.Namespace) -> int:
    command, _, name = options.words[0].partition("=")
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, COMMANDS))
    if not name and command not in ("list", "complexity", "doctor"):
        raise ConfigError(f"{command}=NAME: which one? `python run.py list` shows them")
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

    commands = {
        "experiment": experiment,
        "sweep": sweep,
        "price": price,
        "status": status,
        "cancel": cancel,
        "logs": logs,
        "report": report,
        "collect": collect,
    }
    return commands[command](name, parse_overrides(options.words[1:]), options)


def experiment(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """One run in the foreground."""
    from experiments.config import read_site, resolve
    from experiments.data.layout import check_root
    from experiments.identity import run_id
    from experiments.launch import leave, rank
    from experiments.parent import weights_of
    from experiments.run_folder import RunFolder

    site = read_site()
    runs_dir = runs_folder(given, site)
    config = resolve(name, given, site=site)
    if not options.dry_run or config.data.num_classes is None:
        check_root(config)
    folder = RunFolder(runs_dir / run_id(config))
    if options.dry_run:
        import yaml

        described = {"run": folder.id, "folder": str(folder.path), "config": config.as_dict()}
        print(json.dumps(described) if options.json else yaml.safe_dump(described, sort_keys=False), end="")
        return 0
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


def sweep(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Every missing run of a sweep, on this machine or on Slurm."""
    from sweeps.local import launch

    plan, runs_dir = planned(name, given)
    if options.slurm:
        return _sweep_on_slurm(plan, runs_dir, options)
    if options.max_parallel:
        raise ConfigError("--max-parallel limits Slurm jobs; on this machine it is --jobs")
    if options.dry_run:
        from sweeps.price import known, sentence

        cost = known(plan, runs_dir)
        _show_status(plan, runs_dir, options, price=cost.as_dict() if cost else None)
        if not options.json:
            print(sentence(plan, runs_dir))
        return 0
    with _live(runs_dir) as (say, watch):
        outcome = launch(plan, runs_dir, options.jobs, options.retry_failed, options.force, say, watch)
    for run_id, cause in outcome.failed.items():
        print(f"run.py: {run_id} failed: {cause}", file=sys.stderr)
    for run_id, detail in outcome.running_elsewhere.items():
        print(f"run.py: {run_id} is being run elsewhere: {detail}", file=sys.stderr)
    for run_id, why in (outcome.cancelled | outcome.waiting).items():
        print(f"run.py: {run_id} {why}; the next launch starts it once that is done", file=sys.stderr)
    if earlier := len(outcome.skipped_failed):
        print(f"run.py: {earlier} runs failed earlier; --retry-failed tries them again", file=sys.stderr)
    print(
        f"{len(outcome.done)} of {len(plan.distinct())} runs done; `report={name}` with the same words makes the table"
    )
    return outcome.exit_code


def price(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """What a sweep costs in device-hours; set-ups of unknown speed are timed."""
    from experiments.interrupts import Interrupted
    from sweeps.price import estimate

    plan, runs_dir = planned(name, given)

    def say(line: str) -> None:
        if not options.json:
            print(line, file=sys.stderr, flush=True)

    try:
        found = estimate(plan, runs_dir, fresh=options.fresh, say=say)
    except Interrupted as interruption:
        return interruption.exit_code
    print(json.dumps(found.as_dict()) if options.json else "\n".join(found.table()))
    return 0


def _sweep_on_slurm(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Submits every missing run and is through, unless it is to watch them."""
    from sweeps.slurm.cluster import Cluster, SlurmError
    from sweeps.slurm.launch import launch, scripts

    if options.jobs:
        raise ConfigError("--jobs limits runs on this machine; with --slurm it is --max-parallel")
    if options.dry_run:
        try:
            cluster = Cluster()
        except SlurmError as error:
            cluster = None
            print(f"run.py: {error}; nothing is checked against one", file=sys.stderr)
        made = scripts(plan, runs_dir, cluster, options.max_parallel, options.retry_failed)
        if options.json:
            print(json.dumps([{"name": batch.name, "runs": list(batch.runs), "script": text} for batch, text in made]))
            return 0
        for batch, text in made:
            print(f"# {batch.name}: {', '.join(batch.runs)}\n{text}")
        print(
            f"# {sum(len(batch.runs) for batch, _ in made)} runs in {len(made)} calls of sbatch; nothing was submitted"
        )
        return 0
    outcome = launch(plan, runs_dir, Cluster(), options.max_parallel, options.retry_failed, options.force)
    for run, detail in outcome.waiting.items():
        print(f"run.py: {run} {detail}", file=sys.stderr)
    if earlier := len(outcome.skipped_failed):
        print(f"run.py: {earlier} runs failed earlier; --retry-failed tries them again", file=sys.stderr)
    if outcome.problem:
        print(f"run.py: not all could be submitted: {outcome.problem}; the same command goes on", file=sys.stderr)
    print(
        f"{len(outcome.submitted)} runs submitted, {len(outcome.left_alone)} in the queue before, "
        f"{len(outcome.done)} of {len(plan.distinct())} done; `status={plan.sweep}` with the same words follows them"
    )
    if options.watch:
        _show_status(plan, runs_dir, options, watch=True)
    return outcome.exit_code


@contextmanager
def _live(runs_dir: Path) -> Iterator[tuple[Callable[[str], None], Callable[[list[str]], None]]]:
    """How a launch speaks: lines, and on a terminal below them what each running run is doing."""
    if not sys.stdout.isatty():
        yield lambda line: print(line, flush=True), lambda running: None
        return
    from rich.console import Console

    from experiments.run_folder import RunFolder
    from sweeps.status import state_of

    console = Console()
    with console.status("starting") as display:

        def watch(running: list[str]) -> None:
            display.update("\n".join(f"{run}: {state_of(RunFolder(runs_dir / run))[1]}" for run in running))

        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True), watch


def status(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """What has become of each run."""
    plan, runs_dir = planned(name, given)
    _show_status(plan, runs_dir, options, options.watch)
    return 0


def _show_status(plan: Plan, runs_dir: Path, options: argparse.Namespace, watch: bool = False, **more: Any) -> None:
    """Prints what is known of every planned run, from the run folders and from Slurm, and ``more`` as JSON."""
    from sweeps import show
    from sweeps.slurm.submissions import known
    from sweeps.status import RunStatus, describe

    complaints: list[str] = []

    def look() -> list[RunStatus]:
        submitted, complaint = known(runs_dir, plan.distinct())
        complaints[:] = [complaint] if complaint else []
        return describe(plan, runs_dir, submitted)

    if watch and not options.json:
        show.watch(plan, runs_dir, look)
        return
    rows = look()
    for complaint in complaints:
        print(f"run.py: {complaint}; this is what the run folders say", file=sys.stderr)
    if options.json:
        print(
            json.dumps({**plan.as_dict(), "runs_dir": str(runs_dir), "runs": [row.as_dict() for row in rows], **more})
        )
        return
    print(*show.lines(rows), show.summary(plan, rows, runs_dir), sep="\n")


def cancel(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Takes a sweep's jobs back from Slurm."""
    from sweeps.slurm.cancel import cancel as take_back
    from sweeps.slurm.cluster import Cluster

    plan, runs_dir = planned(name, given)
    jobs = take_back(plan, runs_dir, Cluster())
    if options.json:
        print(json.dumps({"cancelled": jobs}))
        return 0
    for run, job in jobs.items():
        print(f"cancelled job {job}: {run}")
    print(f"{len(jobs)} jobs cancelled; what was running saves its state, and the next launch goes on")
    return 0


def logs(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The end of what a run has said."""
    from experiments.config import read_site
    from sweeps import logs as spoken

    runs_dir = runs_folder(given, read_site())
    if given:
        raise ConfigError(f"logs=RUN takes runs_dir=PATH and nothing else, no {next(iter(given))!r}")
    folder = spoken.run_named(runs_dir, name)
    tails = {str(path): spoken.tail(path) for path in spoken.files(folder)}
    if options.json:
        print(json.dumps({"run": folder.id, "logs": tails}))
        return 0
    for path, lines in reversed(tails.items()):
        print(f"==> {path} <==", *lines, sep="\n", flush=True)
    if options.watch and tails:
        for line in spoken.follow(folder):
            print(line, flush=True)
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


def report(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Table and figures of a sweep, from its run folders or from committed results."""
    from reports import render, specification, terminal
    from results import archive
    from results.collect import collect

    spec = specification.load(name)
    label = given.pop("measured", None)
    if label is not None:
        label = str(label)
        if given:
            raise ConfigError(f"measured={label} says what was run; {next(iter(given))} cannot change it")
        collected = archive.read(archive.folder(label))
        plan = archive.plan_of(collected)
        out = ROOT / "reports" / "pages" / label
    else:
        planning, runs_dir = planned(spec.sweep, given)
        plan = planning.as_dict()
        collected = collect(plan, runs_dir)
        out = runs_dir / "reports" / f"{name}-{planning.protocol}"
    files = render.render(name, collected, plan, out, mixed=options.mixed, label=label)
    if options.json:
        print(terminal.to_json(name, collected, plan, mixed=options.mixed))
    else:
        terminal.show(name, collected, plan, mixed=options.mixed)
        print(f"{len(files)} files, first of all {out / 'report.md'}")
    return 0


def collect(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The results of a sweep as tidy files that can be committed."""
    from datetime import date

    from results import archive
    from results.collect import collect as collected_from

    label = given.pop("into", None)
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


def show_complexity(name: str, options: argparse.Namespace) -> int:
    """Parameters and FLOPs of every classification model and arm, counted, beside the papers'."""
    from reports import complexity

    models = complexity.rows(name or None)
    import timm
    import torch

    import atm  # noqa: F401  (registers the models)
    from atm.complexity import count

    def counted(model: str, arguments: dict[str, Any], size: int) -> tuple[float, float]:
        with torch.device("meta"):
            found = count(timm.create_model(model, **arguments), (3, size, size))
        return found.params_m, found.flops_g

    comparison = complexity.compare(counted, models)
    if options.json:
        print(complexity.to_json(comparison))
    else:
        complexity.show(comparison)
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
