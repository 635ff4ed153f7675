#!/usr/bin/env python3
"""The table of commands and options. Each command lives in the ``commands.py`` of its room."""

from __future__ import annotations

import sys

from command_line import Command, Option, dispatch, positive
from errors import SuiteError

COMMANDS = {
    "experiment": Command("experiments.commands:experiment", {
        "experiment=NAME [key=value …]": "runs one experiment in the foreground",
    }, needs=("sweeps.slurm.submissions:known",)),
    "sweep": Command("sweeps.sweep_command:sweep", {
        "sweep=NAME [key=value …] [--jobs N]": "executes the missing runs of a sweep on this machine",
        "sweep=NAME [key=value …] --background": "does so in the background, from a frozen copy of the code",
        "sweep=NAME [key=value …] --slurm": "submits the missing runs to Slurm and exits",
    }),
    "price": Command("sweeps.commands:price", {
        "price=NAME [--fresh]": "estimates the device-hours of a sweep from a short probe of each set-up",
    }),
    "status": Command("sweeps.commands:status", {"status=NAME": "shows the state of each run of a sweep"},
                      only_shows=True),
    "cancel": Command("sweeps.commands:cancel", {"cancel=NAME": "stops the runs of a sweep, here and on Slurm"}),
    "prune": Command("sweeps.commands:prune", {
        "prune=NAME [--yes]": "removes checkpoints of finished runs, superseded folders and unused code",
    }),
    "logs": Command("sweeps.commands:logs", {"logs=RUN": "prints the end of the logs of a run"}, only_shows=True),
    "report": Command("reports.commands:report", {
        "report=NAME": "writes the table and figures of a sweep from the results that exist so far",
        "report=paper": "writes both papers on one page from the results that exist so far",
    }, needs=("sweeps.commands:planned_for_reports", "experiments.folder.present_code:is_present")),
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
    "evaluate": Command("measurements.commands:evaluate", {
        "evaluate=RUN [key=value …]": "judges a finished run again, as it was or with other images, sizes, views",
        "evaluate=FILE experiment=NAME model=…": "judges a weights file: ours, timm's or the authors'",
    }),
    "export": Command("measurements.commands:export", {
        "export=RUN to=hub into=FOLDER": "writes a finished run as a folder that timm loads, with a model card",
    }),
    "predict": Command("measurements.commands:predict", {
        "predict=RUN images=PATH": "draws what a run of segmentation or detection sees in one or more images",
    }, needs=("reports.figures.segments", "reports.figures.boxes")),
    "list": Command("sweeps.commands:show_list", {
        "list": "lists experiments, sweeps and reports with one line about each",
        "list runs": "lists the run folders with their states and sizes",
    }, named=False, settings=False, only_shows=True),
    "doctor": Command("doctor.commands:doctor", {
        "doctor [experiment=NAME key=value …]": "checks whether this machine is ready and says how to correct problems",
    }, named=False, settings=False, only_shows=True),
}  # fmt: skip

OPTIONS = {
    "--jobs": Option(("sweep",), "number of runs at a time", "N", positive),
    "--slurm": Option(("sweep", "price"), "use Slurm jobs instead of this machine"),
    "--max-parallel": Option(("sweep", "price"), "number of Slurm jobs at a time, with --slurm", "N", positive),
    "--dry-run": Option(("experiment", "sweep"), "print what would be executed, and execute nothing"),
    "--retry-failed": Option(("sweep",), "also start runs that failed or were excluded before"),
    "--replay": Option(("experiment", "sweep"), "resume runs if the changed code computes their last steps the same"),
    "--force": Option(("experiment", "sweep"), "resume runs although the code has changed since, and mark them"),
    "--background": Option(("sweep",), "start the runs from a process of its own, and return"),
    "--nice": Option(("sweep",), "execute the runs at low priority"),
    "--at": Option(("sweep",), "start runs with the code of this commit", "COMMIT"),
    "--new-code": Option(("sweep",), "start runs that have not begun with the present code, in a sweep that has"),
    "--yes": Option(("prune",), "remove; without it, only print what would be removed"),
    "--fresh": Option(
        ("sweep", "price", "offsets", "evaluate", "report"), "measure again what was measured before; show the new runs"
    ),
    "--undo": Option(("exclude",), "take an exclusion back"),
    "--watch": Option(("status", "sweep", "logs"), "follow until nothing runs any more"),
    "--mixed": Option(("report", "offsets"), "average runs of different code or data, and mark the averages"),
    "--check": Option(("report",), "compare the committed pages with newly made ones"),
    "--note": Option(("collect",), "what a reader should know about the results", "TEXT"),
}

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
  interventions=true         offsets: all of shuffled_tokens, shuffled_images, mean, zero, rounded, or name some;
                             with images=N on so many, with layer=layer_3_1 in this layer alone
  PATH.yaml                  in place of a NAME: an experiment, sweep or report of your own
  any other setting of experiments/schema.py, e.g. train.epochs=5 model.offsets=token

start here: python run.py sweep=reach protocol=smoke   (needs no data, takes minutes on a laptop)"""


def main(words: list[str]) -> int:
    try:
        return dispatch(words, COMMANDS, OPTIONS, KEYS)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
