"""The programs that read a report's pages in tests: a browser for HTML, LaTeX and what shows its PDF.

``python -m tests.reports.programs`` says which of them are missing, and ends with 1 if any is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

GET_THEM = "as root, `make readers` gets it"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def without_browser() -> list[str]:
    """What is missing to read HTML."""
    return [*([] if browser() else ["chromium"]), *([] if shutil.which("chromedriver") else ["chromedriver"])]


def without_latex() -> list[str]:
    """What is missing to read LaTeX."""
    missing = [command for command in ("pdflatex", "pdftotext") if not shutil.which(command)]
    if shutil.which("kpsewhich") and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode:
        missing.append("booktabs.sty")
    return missing


def need(missing: list[str]) -> None:
    """Skips a test for what is missing, or fails it where CI=true says that it must run."""
    import pytest

    if not missing:
        return
    reason = f"{', '.join(missing)} not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true says that these tests must run", pytrace=False)
    pytest.skip(f"{reason}: {GET_THEM}")


if __name__ == "__main__":
    found = [*without_browser(), *without_latex()]
    sys.exit(f"no readers of pages: {', '.join(found)} not installed" if found else 0)
