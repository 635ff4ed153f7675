"""The programs that read a report's pages in tests: a browser for HTML, LaTeX and a reader of its PDF.

``python -m tests.reports.programs`` lists those that are missing, and exits with 1 if there are any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def without_browser() -> list[str]:
    """Missing programs to read HTML."""
    return [*([] if browser() else ["chromium"]), *([] if shutil.which("chromedriver") else ["chromedriver"])]


def without_latex() -> list[str]:
    """Missing programs and packages to read LaTeX."""
    missing = [command for command in ("pdflatex", "pdftotext") if not shutil.which(command)]
    if shutil.which("kpsewhich") and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode:
        missing.append("booktabs.sty")
    return missing


def need(missing: list[str]) -> None:
    """Skips a test whose programs are missing, or fails it where CI=true requires it."""
    import pytest

    if not missing:
        return
    reason = f"{', '.join(missing)} not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true requires these tests", pytrace=False)
    pytest.skip(f"{reason}: as root, `make readers` gets it")


if __name__ == "__main__":
    missing = [*without_browser(), *without_latex()]
    sys.exit(f"no readers of pages: {', '.join(missing)} not installed" if missing else 0)
