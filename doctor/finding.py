"""The input of a check, and the findings that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import SuiteError

ROOT = Path(__file__).resolve().parent.parent
OK, WARNING, PROBLEM, ABSENT = "ok", "warning", "problem", "absent"
TO_INSTALL = "run it with .venv/bin/python (make test sets that up), or pip install -r requirements.lock"


@dataclass(frozen=True)
class Finding:
    """One line of the answer. ``advice`` says what to do; it is not shown where the verdict is OK."""

    name: str
    verdict: str
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        advice = "" if self.verdict == OK else self.advice
        for part, text in (("message", self.message), ("advice", advice)):
            object.__setattr__(self, part, " ".join(text.split()))  # errors and file names may contain line breaks


@dataclass(frozen=True)
class CheckInputs:
    """What the command line and site.yaml say; the checks use it beside the machine itself."""

    runs_dir: Callable[[], Path]
    experiment: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    site: Mapping[str, Any] = field(default_factory=dict)
    site_path: Path = ROOT / "site.yaml"


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. Whatever it raises becomes a finding of verdict PROBLEM under ``name``."""
    try:
        yield from check()
    except (SuiteError, OSError) as error:
        yield Finding(name, PROBLEM, str(error), "correct what the message names")
    except ImportError as error:
        yield Finding(name, PROBLEM, f"not checked: {error}", TO_INSTALL)
    except Exception as error:
        message = f"not checked: {type(error).__name__}: {error}"
        yield Finding(name, PROBLEM, message, "correct what the message names, or report a fault of doctor")


def enumeration(names: list[str], most: int = 4) -> str:
    """``: a, b, c, d and 3 more``, to be put behind a number of things; empty for no names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f": {', '.join(names[:most])}{more}" if names else ""


def gigabytes(count: int) -> str:
    return f"{count / 10**9:,.1f} GB"
