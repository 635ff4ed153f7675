"""What a check is asked, and what it answers."""

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
    """One line of the answer. ``advice`` says what to do; where all is well it is left out."""

    name: str
    verdict: str
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        advice = "" if self.verdict == OK else self.advice
        for part, text in (("found", self.found), ("advice", advice)):
            object.__setattr__(self, part, " ".join(text.split()))  # one line, whatever an error or a file name holds


@dataclass(frozen=True)
class Asked:
    """What the checks are about beside the machine itself."""

    runs_dir: Callable[[], Path]
    experiment: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    site: Mapping[str, Any] = field(default_factory=dict)
    site_path: Path = ROOT / "site.yaml"


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds; whatever it raises becomes a problem of that name."""
    try:
        yield from check()
    except (SuiteError, OSError) as error:
        yield Finding(name, PROBLEM, str(error), "correct what it names")
    except ImportError as error:
        yield Finding(name, PROBLEM, f"not checked: {error}", TO_INSTALL)
    except Exception as error:
        found = f"not checked: {type(error).__name__}: {error}"
        yield Finding(name, PROBLEM, found, "correct what it names, or report it as a fault of doctor")


def listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f": {', '.join(names[:most])}{more}" if names else ""


def size(count: int) -> str:
    return f"{count / 10**9:,.1f} GB"
