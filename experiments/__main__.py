"""``python -m experiments FOLDER`` trains the frozen run of a folder; launchers start runs this way.

Under torchrun every process of a run calls it. ``--force`` goes on with a checkpoint of other code, ``--console`` also
says on standard error what goes into the log.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from errors import SuiteError
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted
from experiments.launch import is_launched, leave, rank, train


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--console", action="store_true")
    options = parser.parse_args(words)
    return start(RunFolder(options.folder), options.force, options.console)


def start(folder: RunFolder, force: bool = False, console: bool = False) -> int:
    """Trains in this process, or in one per device, and returns the exit code."""
    try:
        config = folder.config()
        if rank() == 0:
            folder.refuse_held()  # said at once; the claim that counts is made once torch is there
        if config.machine.devices > 1 and not is_launched():
            return train(folder, config, force, console)
        _train_here(folder, force, console)
    except Interrupted as interruption:
        if console and rank() == 0:
            print(f"run.py: interrupted; the same command resumes {folder.id}", file=sys.stderr)
        return interruption.exit_code
    except SuiteError as error:
        if rank() == 0:
            print(f"run.py: {error}" if console else error, file=sys.stderr)
        return error.exit_code
    return 0


def _train_here(folder: RunFolder, force: bool, console: bool) -> None:
    import logging

    from experiments.training.loop import run

    if console and rank() == 0:
        handler = logging.StreamHandler()
        handler.setLevel(logging.INFO)
        logging.getLogger("experiments").addHandler(handler)
    run(folder, bar=console and rank() == 0 and sys.stderr.isatty(), force=force)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
