"""Commands of this program in messages, as they can be pasted into the shell that it was called from. No packages."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "run.py"


def command(*words: str) -> str:
    """``python run.py`` and ``words``, with the interpreter's path where the shell's own ``python`` is another."""
    shells, own = shutil.which("python"), Path(sys.executable)
    is_own = shells is not None and Path(shells).parent.resolve() == own.parent.resolve()
    python = "python" if is_own else _relative(own)
    script = _relative(SCRIPT) if SCRIPT.exists() else SCRIPT.name  # a copy of the code has none
    return shlex.join([python, script, *words])


def same_settings(name: str, given: str, words: Sequence[str], *options: str) -> str:
    """``python run.py NAME=GIVEN`` with ``words``, the settings of another command, and ``options``."""
    return command(f"{name}={given}", *words, *options)


def _relative(path: Path) -> str:
    """The path from the current folder where it lies below it; a link such as .venv/bin/python stays one."""
    with_dots = os.path.relpath(path)
    return str(path) if with_dots.startswith("..") else with_dots
