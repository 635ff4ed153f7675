"""The log of a run's metrics, ``metrics.jsonl``: one row per epoch, or per interval between evaluations."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFolderError, WriteError


class MetricsLog:
    """A file of rows, append-only and keyed by step.

    ``rows`` are all rows of the run so far. Every checkpoint holds them, so a log that lost its end gets it back. Rows
    that cannot be written (disk full) are written with the next one, or by ``flush``.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[str] = []
        self._written = 0

    def append(self, row: Mapping[str, Any]) -> None:
        self.rows.append(json.dumps(row))
        with suppress(WriteError):
            self.flush()

    def flush(self) -> None:
        """Raises WriteError, leaving the log as it was, where rows cannot be written."""
        content = "".join(row + "\n" for row in self.rows[self._written :]).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    if file.write(content) < len(content):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {atomic_file.reason(error)}") from None
        self._written = len(self.rows)

    def restore(self, rows: list[str]) -> None:
        """Makes ``rows`` the whole log: drops later rows and a torn last line, and adds missing rows.

        Raises RunFolderError that names file and line where another line is not a row: not this class wrote it.
        """
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            torn = number == len(lines) and not text.endswith("\n")
            if not torn and not _is_row(line):
                raise RunFolderError(f"{self.path}:{number}: not a row of metrics; correct or delete the line")
        self.rows, self._written = list(rows), len(rows)
        if rows or lines:
            atomic_file.write(self.path, "".join(row + "\n" for row in rows))


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and type(row.get("step")) is int
