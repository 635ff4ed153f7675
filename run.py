#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""The table of commands and options. Each command lives in the ``commands.py`` of its room."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from command_line import Command, Option, Tables, complete, dispatch, positive
from errors import SuiteError

RECIPE, SWEEP = "sweeps.description:of_recipe", "sweeps.description:of_sweep"  # what --help says about a NAME
SWEEPS, RUNS = "sweeps.plan:sweep_names", "experiments.commands:run_names"  # what a NAME is completed from
COMMANDS = {
    "experiment": Command("experiments.commands:experiment", {
        "experiment=NAME [key=value …]": "runs one experiment in the foreground",
    }, needs=("sweeps.slurm.submissions:known",), about=RECIPE, names="experiments.config:recipe_names"),
    "config": Command("experiments.commands:rerun", {
        "config=FILE [key=value …]": "runs a saved config again, e.g. the config.yaml of a run folder",
    }, needs=("sweeps.slurm.submissions:known",)),
    "sweep": Command("sweeps.sweep_command:sweep", {
        "sweep=NAME [key=value …] [--jobs N]": "executes the missing runs of a sweep on this machine",
        "sweep=NAME [key=value …] --background": "does so in the background, from a frozen copy of the code",
        "sweep=NAME [key=value …] --slurm": "submits the missing runs to Slurm and exits",
    }, about=SWEEP, names=SWEEPS),
    "price": Command("sweeps.commands:price", {
        "price=NAME [--fresh]": "estimates the device-hours of a sweep from a short probe of each set-up",
    }, about=SWEEP, names=SWEEPS),
    "plan": Command("sweeps.seed_plan:plan_seeds", {
        "plan=NAME resolve=0.5 [key=value …]": "says how many seeds resolve 0.5 points of difference, from pilot runs",
    }, only_shows=True, about=SWEEP, names=SWEEPS),
    "status": Command("sweeps.commands:status", {
        "status=NAME": "shows the state of each run of a sweep",
        "status=RUN": "shows the state, progress and metrics of one run, and where its files are",
    }, only_shows=True, about=SWEEP, names=SWEEPS),
    "cancel": Command("sweeps.commands:cancel", {"cancel=NAME": "stops the runs of a sweep, here and on Slurm"},
                      about=SWEEP, names=SWEEPS),
    "prune": Command("sweeps.commands:prune", {
        "prune=NAME [--yes]": "removes checkpoints of finished runs, superseded folders and unused code",
    }, about=SWEEP, names=SWEEPS),
    "logs": Command("sweeps.commands:logs", {"logs=RUN": "prints the end of the logs of a run"}, only_shows=True,
                    names=RUNS),
    "report": Command("reports.commands:report", {
        "report=NAME": "writes the table and figures of a sweep from the results that exist so far",
        "report=paper": "writes both papers on one page from the results that exist so far",
        "report=RUN": "writes a page about one run: learning curves, settings, data, files",
    }, needs=("sweeps.commands:planned_for_reports", "experiments.folder.present_code:is_present",
              "sweeps.commands:run_for_reports"),
        about=SWEEP, names="reports.specification_files:names"),
    "collect": Command("sweeps.collect_command:collect", {
        "collect=NAME into=LABEL": "merges the results of a sweep into tidy files under results/measured/",
        "collect=NAME into=LABEL measured=OTHER": "the same with measured results, by name or path, not run folders",
        "collect=complexity": "counts every model of the complexity table for reports",
    }),
    "exclude": Command("sweeps.exclude_command:exclude", {
        "exclude=RUN because=TEXT [into=LABEL]": "leaves a broken run out of every report, which says so and why",
        "exclude=RUN --undo [into=LABEL]": "takes that back",
    }, settings=False),
    "complexity": Command("measurements.commands:complexity", {
        "complexity[=TASK|MODEL]": "prints parameters and FLOPs beside those that the papers print",
    }, needs=("reports.content.complexity", "reports.formats.terminal:print_section"), named=False, settings=False,
        only_shows=True),
    "offsets": Command("measurements.commands:offsets", {
        "offsets=RUN|FILE|SWEEP [key=value …]": "measures and draws learned offsets: statistics, histograms, overlays",
        "offsets=… interventions=true": "judges models whose offsets are shuffled, averaged, zeroed or rounded",
    }, needs=("sweeps.plan:sweep_names", "sweeps.commands:planned", "reports.offsets.page", "reports.offsets.terminal",
              "reports.offsets.interventions", "reports.formats.terminal:print_section")),
    "reach": Command("measurements.commands:reach", {
        "reach=RUN|FILE|SWEEP|timm/NAME [key=value …]": "measures and draws the effective receptive field",
    }, needs=("sweeps.commands:is_sweep", "sweeps.commands:planned", "reports.receptive_field.page",
              "reports.formats.terminal:print_section"), names=SWEEPS),
    "evaluate": Command("measurements.commands:evaluate", {
        "evaluate=RUN [key=value …]": "judges a finished run again, as it was or with other images, sizes, views",
        "evaluate=FILE experiment=NAME model=…": "judges a weights file: ours, timm's or the authors'",
    }),
    "export": Command("measurements.commands:export", {
        "export=RUN to=hub into=FOLDER": "writes a finished run as a folder that timm loads, with a model card",
        "export=SWEEP|RUN to=tensorboard|csv [into=FOLDER]": "writes metrics and settings of runs in any state",
    }, needs=("sweeps.commands:is_sweep", "sweeps.commands:planned"), names=SWEEPS),
    "diff": Command("reports.commands:diff", {
        "diff=RUN,RUN": "shows in which settings, code, data, packages and metrics two runs differ",
    }, needs=("sweeps.commands:run_for_reports",), only_shows=True, names=RUNS),
    "predict": Command("measurements.commands:predict", {
        "predict=RUN images=PATH": "draws what a run of segmentation or detection sees in one or more images",
    }, needs=("reports.figures.segments", "reports.figures.boxes")),
    "list": Command("sweeps.commands:show_list", {
        "list": "lists experiments, sweeps and reports with one line about each",
        "list runs": "lists the run folders with their states and sizes",
    }, named=False, settings=False, only_shows=True),
    "doctor": Command("doctor.commands:doctor", {
        "doctor [experiment=NAME key=value …]": "checks whether this machine is ready and says how to correct problems",
        "doctor … --slurm": "makes the same checks on a node of the cluster, in a short job",
    }, named=False, settings=False, only_shows=True),
}  # fmt: skip

EXECUTE = ("experiment", "config", "sweep")
OPTIONS = {
    "--jobs": Option(("sweep",), "number of runs at a time", "N", positive),
    "--slurm": Option(("sweep", "price", "doctor"), "use Slurm jobs instead of this machine"),
    "--max-parallel": Option(("sweep", "price"), "number of Slurm jobs at a time, with --slurm", "N", positive),
    "--dry-run": Option(EXECUTE, "print what would be executed, and execute nothing"),
    "--retry-failed": Option(("sweep",), "also start runs that failed or were excluded before"),
    "--replay": Option(EXECUTE, "resume runs if changed code computes their last steps the same"),
    "--force": Option(EXECUTE, "resume runs although the code has changed, and mark them"),
    "--background": Option(("sweep",), "start the runs from a process of its own, and return"),
    "--nice": Option(("sweep",), "execute the runs at low priority"),
    "--at": Option(("sweep",), "start runs with the code of this commit", "COMMIT"),
    "--new-code": Option(("sweep",), "start runs that have not begun with the present code, in a sweep that has"),
    "--yes": Option(("prune",), "remove; without it, only print what would be removed"),
    "--fresh": Option(
        ("sweep", "price", "offsets", "reach", "evaluate", "report"),
        "measure again what was measured before; show the new runs",
    ),
    "--undo": Option(("exclude",), "take an exclusion back"),
    "--watch": Option(("status", "sweep", "logs"), "follow until nothing runs any more"),
    "--mixed": Option(
        ("report", "offsets", "reach", "plan"), "average runs of different code or data, and mark the averages"
    ),
    "--check": Option(("report",), "compare the committed pages with newly made ones"),
    "--note": Option(("collect",), "what a reader should know about the results", "TEXT"),
}

HABITS = {
    **dict.fromkeys(("-m", "--multirun"), "several runs are a sweep: sweep=NAME, seeds=0,1,2, arms=zero,axial"),
    **dict.fromkeys(("--cfg", "--info", "-c"), "--dry-run prints the whole config and executes nothing"),
    **dict.fromkeys(("--config-name", "--config-path", "--config-dir", "--config"),
                    "experiment=PATH.yaml takes a recipe of your own, config=FILE a saved config"),
    **dict.fromkeys(("--resume", "--auto-resume", "--continue"), "the same command goes on where a run stopped"),
    **dict.fromkeys(("-j", "-n", "--n-jobs"), "--jobs N runs so many runs at a time; data.workers=N to load images"),
    **dict.fromkeys(("--array", "--sbatch", "--submit"), "--slurm submits a sweep as job arrays"),
    **dict.fromkeys(("-v", "--verbose", "-q", "--quiet"), "logs=RUN prints a run's log, --json one document alone"),
    **dict.fromkeys(("--eval", "--evaluate"), "evaluate=RUN or evaluate=FILE judges weights"),
    **dict.fromkeys(("--dryrun", "--dry_run"), "it is written --dry-run"),
}  # fmt: skip

KEYS = """\
keys:
  model=nano|xt|t|s|b|l      or any timm/NAME      seed=N, seeds=[0,1,2]   the seeds
  protocol=paper|tiny|smoke  of a sweep or report  arms=[…], tasks=[…]     some arms or tasks of a sweep
  tables=[…]                 some tables of sweep=paper                    gpus=N  its time on N (--dry-run, status)
  devices=N                  processes per run: one per GPU, or sharing the cores of the CPU
  data.root=PATH             folder of the images  runs_dir=PATH           folder of the run folders
  measured=LABEL             report from results/measured/LABEL instead of run folders; measured=all for report=paper
  experiment=NAME            doctor: also check the data of this run; offsets=FILE, evaluate=FILE: the recipe
                             that names its task and data
  weights=ema|raw            evaluate, export: averaged weights, or those that the optimizer moved
  images=N layer=layer_3_1 query=[0.5,0.5]         offsets: number of images, and the reads to draw over some of them
  images=N stage=3           reach: number of images, and the stage whose map is looked at, the last without it
  interventions=true         offsets: all of shuffled_tokens, shuffled_images, mean, zero, rounded, or name some;
                             with images=N on so many, with layer=layer_3_1 in this layer alone
  mixer=PATH.py:NAME         of a sweep: a mixer of your own as one more arm, e.g. of sweep=profile
  power=0.8 comparisons=N confidence=0.8 metric=NAME  plan: of the test, in its family (Holm); in the pilots' deviation
  PATH.yaml                  in place of a NAME: an experiment, sweep or report of your own
  command=NAME --help        says what NAME is, e.g. the arms and protocols of a sweep
  any other setting of experiments/schema.py, e.g. train.epochs=5 model.offsets=token

start here: python run.py sweep=reach protocol=smoke   (needs no data, takes minutes on a laptop)"""


TABLES = Tables(COMMANDS, OPTIONS, KEYS, HABITS)


def main(words: list[str]) -> int:
    try:
        return dispatch(words, TABLES)
    except ModuleNotFoundError as error:
        print(f"run.py: {_without(error)}", file=sys.stderr)
        return 2
    except SuiteError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(f"run.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has closed the pipe, e.g. `| head`
        return 0


def _without(error: ModuleNotFoundError) -> str:
    """Says how to go on where a package is missing: with the environment, or after it was set up."""
    root = Path(__file__).resolve().parent
    package = (error.name or "").partition(".")[0]
    if (root / f"{package}.py").exists() or (root / package).is_dir():
        raise error  # one of our own modules
    missing = f"{sys.executable} has no package {package}"
    if Path(sys.prefix).resolve() == (root / ".venv").resolve():
        return f"{missing}: `make setup` installs what is missing in .venv"
    ready = "" if (root / ".venv" / "bin" / "python").exists() else "make setup && "
    return f"{missing}; use the environment: {ready}source .venv/bin/activate"


if __name__ == "__main__":
    if "_ARGCOMPLETE" in os.environ:  # set by a shell that completes a line
        complete(TABLES)
    sys.exit(main(sys.argv[1:]))
