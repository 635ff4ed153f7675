"""Typesets LaTeX as a reader would, and reads the PDF."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.reports import programs

POINTS_OVER = 2.0  # a smaller overhang of a line is not visible


@dataclass(frozen=True)
class Typeset:
    """A PDF. first_word: how many points wide its first word is, which tells the size of the type."""

    text: str
    pages: int
    first_word: float


def typeset(folder: Path, name: str, over: float = POINTS_OVER) -> Typeset:
    """The PDF of ``name``; fails where LaTeX reports a fault that a reader would see, lines that are too wide included."""
    programs.need(programs.without_latex())
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    # lines of a log are otherwise broken after 79 characters, in the middle of a word
    wide = os.environ | {"max_print_line": "1000", "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(command, cwd=folder, env=wide, capture_output=True, timeout=120)
    log = (folder / f"{name}.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log, re.findall(r"Missing character.*", log)
    wider = [float(points) for points in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", log)]
    assert max(wider, default=0) < over, re.findall(r"Overfull.*", log)
    boxes = _output("pdftotext", "-bbox", f"{name}.pdf", "-", folder=folder)
    left, right = map(float, re.findall(r'xMin="([\d.]+)".*xMax="([\d.]+)"', boxes)[0])
    text = _output("pdftotext", "-layout", f"{name}.pdf", "-", folder=folder)
    return Typeset(text, boxes.count("<page "), right - left)


def _output(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout
