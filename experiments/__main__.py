"""``python -m experiments FOLDER`` trains the frozen run of a folder; launchers start runs this way."""

from __future__ import annotations

import sys
from pathlib import Path

from errors import SuiteError
from experiments.interrupts import Interrupted
from experiments.run_folder import RunFolder


def main(folder: str) -> int:
    from experiments.engine import run

    try:
        run(RunFolder(Path(folder)))
    except Interrupted as interruption:
        return interruption.exit_code
    except SuiteError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
