"""``python -m experiments FOLDER`` trains the frozen run of a folder; launchers start runs this way.

Under torchrun every process of a run calls it. From a checkpoint that other code wrote, ``--replay`` goes on where this
code computes the same, and ``--force`` in any case. ``--console`` also shows on standard error what goes into the log.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import output
from errors import SuiteError
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted
from experiments.launch import is_launched, leave, rank, train


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replay", dest="other_code", action="store_const", const="replay")
    parser.add_argument("--force", dest="other_code", action="store_const", const="force")
    parser.add_argument("--console", action="store_true")
    options = parser.parse_args(words)
    return start(RunFolder(options.folder), options.other_code, options.console)


def start(folder: RunFolder, other_code: str | None = None, console: bool = False) -> int:
    """Trains in this process, or in one per device, and returns the exit code."""
    try:
        config = folder.config()
        if rank() == 0:
            folder.refuse_held()  # an early look; the claim that counts is made when torch is imported
        if config.machine.devices > 1 and not is_launched():
            return train(folder, config, other_code, console)
        _train_here(folder, other_code, console)
    except Interrupted as interruption:
        if console and rank() == 0:
            print(f"run.py: interrupted; the same command resumes {folder.id}", file=sys.stderr)
        return interruption.exit_code
    except SuiteError as error:
        if rank() == 0:
            print(f"run.py: {error}" if console else error, file=sys.stderr)
        return error.exit_code
    return 0


def _train_here(folder: RunFolder, other_code: str | None, console: bool) -> None:
    import logging

    from experiments.training.loop import run

    if not console or rank() != 0:
        run(folder, other_code=other_code)
        return
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    log = logging.getLogger("experiments")
    log.addHandler(handler)
    try:
        run(folder, bar=sys.stderr.isatty(), other_code=other_code)
    finally:
        log.removeHandler(handler)


if __name__ == "__main__":
    output.tolerate_loss()
    leave(main(sys.argv[1:]))
