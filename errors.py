"""Errors for the user: one line that names what is wrong and the nearest valid choice.

Every room except ``atm`` raises them; only ``run.py`` prints them and turns them into an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category


class SuiteError(Exception):
    """The base of all errors for the user. The message is one line and is printed as it is; exit code 2."""

    exit_code = 2


class ConfigError(SuiteError):
    """A key, name or value that is not valid in the schema, a recipe or a sweep."""


class DataError(SuiteError):
    """A data root or an image that cannot be used."""


class RunFolderError(SuiteError):
    """A run folder that cannot be used: not writable, in use elsewhere, or with files that contradict each other."""


class UnreadableError(RunFolderError):
    """A file or folder that is there and cannot be read: for want of rights, or because it is something else."""


class WriteError(SuiteError):
    """A file that could not be written; exit code 1."""

    exit_code = 1


class RunFailed(SuiteError):
    """A run that started and cannot finish; exit code 1."""

    exit_code = 1


BREAKS = ("Cc", "Zl", "Zp")  # categories of Unicode: control characters, separators of lines and paragraphs


def refuse_control_characters(key: str, value: object) -> None:
    """Raises ConfigError for text with a line break or the like, which scripts and terminals read as something else."""
    if isinstance(value, str) and any(category(character) in BREAKS for character in value):
        raise ConfigError(f"{key}={value!r}: contains a line break or another control character")


def unknown(kind: str, name: object, valid: Iterable[str], meant: Iterable[str] = (), at_most: int = 40) -> str:
    """The message ``unknown arm 'axail'; did you mean 'axial'? (valid: …)``.

    meant: names that are known to be meant, first among the near ones. A list of more than 12 is left out if there are
    near ones, and cut after ``at_most``.
    """
    names = sorted(map(str, valid))
    alike = get_close_matches(str(name), names, n=3, cutoff=0.8 if (known := list(meant)) else 0.5)
    near = list(dict.fromkeys([*known, *alike]))[:3]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    listing = f" (valid: {', '.join(names[:at_most])}{more})" if names and (len(names) <= 12 or not near) else ""
    return f"unknown {kind} {str(name)!r}{hint}{listing}"
