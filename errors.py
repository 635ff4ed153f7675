"""Errors meant for the person at the keyboard: one line that names the thing and the nearest valid choice.

Every room but ``atm`` raises these; ``run.py`` is the one place that prints them and turns them into an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SuiteError(Exception):
    """Anything the suite refuses. The message is one line, shown as it is; exit code 2."""

    exit_code = 2


class ConfigError(SuiteError):
    """A key, name or value that the schema, a recipe or a sweep does not know."""


class DataError(SuiteError):
    """A data root or an image that cannot be used."""


class RunFolderError(SuiteError):
    """A run folder that cannot be written, or whose files contradict each other."""


class WriteError(SuiteError):
    """A file that could not be written; exit code 1."""

    exit_code = 1


class RunFailed(SuiteError):
    """A run that started and could not finish; exit code 1."""

    exit_code = 1


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """``unknown arm 'axail': did you mean 'axial'? (valid: …)``; the list is left out where it would be long."""
    names = sorted(map(str, valid))
    near = get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    listing = f" (valid: {', '.join(names)})" if names and (len(names) <= 12 or not near) else ""
    return f"unknown {kind} {str(name)!r}{hint}{listing}"
