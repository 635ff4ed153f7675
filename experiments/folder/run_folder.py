"""The files of one run, and the only code that writes them: atomically, and by one process at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFolderError, WriteError
from experiments.config import from_dict, get, read_yaml, write_yaml
from experiments.folder.claim import Claim, Holder, held_by, holder_of, refusing, take
from experiments.schema import FIELDS, SECTIONS, Config


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def freeze(self, config: Config, settings: Collection[str] | None = None) -> None:
        """Creates the folder with its ``config.yaml``; one that is there keeps every setting that decides numbers.

        The others, e.g. loader processes, are replaced unless the run is running. settings: dotted keys to write, for
        code that knows no others; None = all. Raises RunFolderError where the folder cannot be written or holds
        another config.
        """
        with refusing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            path, text = self.path / "config.yaml", write_yaml(_only(config.as_dict(), settings))
            if path.exists():
                if path.read_bytes() == text.encode():
                    return
                self._refuse_other(config)
                if self.holder():
                    return
            try:
                atomic_file.write(path, text)
            except WriteError as error:
                raise error.__cause__ or error from None

    def _refuse_other(self, config: Config) -> None:
        frozen = self.config()
        for key, f in FIELDS.items():
            if f.metadata["scientific"] and key != "init" and get(frozen, key) != get(config, key):
                raise RunFolderError(
                    f"{self.path}: its config.yaml says {key}={get(frozen, key)}, not {get(config, key)}; "
                    "it was edited, or another version of the suite wrote it"
                )

    def config(self) -> Config:
        return from_dict(read_yaml(self.path / "config.yaml"))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        atomic_file.write(self.path / name, json.dumps(content, indent=1) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the folder; empty where it is absent or unreadable."""
        try:
            content = json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def set_state(self, state: str, **details: Any) -> None:
        """Notes how the run stands; how far it is, where that is not said, stays as it was."""
        before = self.read_json("state.json")
        details = {key: before[key] for key in ("step", "steps") if key in before} | details
        where = {"updated": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        self.write_json("state.json", {"state": state, **details, **where})

    def finished(self) -> dict[str, Any]:
        """The summary of a finished run, else empty."""
        summary = self.read_json("summary.json")
        return summary if summary.get("run") == self.id else {}

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Holds the run for this process; ``check`` what it yields before writing into the folder.

        Raises RunFolderError while another process has the run, on whichever machine, and where the folder cannot be
        written.
        """
        held = take(self.path)
        try:
            yield held
        finally:
            held.release()

    def holder(self) -> Holder | None:
        """The live process that has the run, on whichever machine. Changes nothing."""
        return holder_of(self.path)

    def refuse_held(self) -> None:
        """Raises RunFolderError, as ``claim`` would, while a live process has the run. Changes nothing."""
        if holder := self.holder():
            raise held_by(self.path, holder)


def _only(config: dict[str, Any], settings: Collection[str] | None) -> dict[str, Any]:
    if settings is None:
        return config
    sections = {
        name: {key: setting for key, setting in value.items() if f"{name}.{key}" in settings}
        for name, value in config.items()
        if name in SECTIONS
    }
    return {
        name: sections.get(name, value) for name, value in config.items() if (name in settings or sections.get(name))
    }


class MetricsLog:
    """``metrics.jsonl``: append-only, one row per epoch, keyed by step.

    ``rows`` are those of this run so far, and part of every checkpoint: a log that lost its end gets it back. Rows that
    cannot be written (disk full) wait for the next one, or for ``flush``.
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
                good = file.tell()
                try:
                    if file.write(content) < len(content):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(good)
                    raise
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {atomic_file.reason(error)}") from None
        self._written = len(self.rows)

    def restore(self, rows: list[str]) -> None:
        """Makes ``rows`` the log again: drops what is past them and a torn last line, and adds what is missing.

        Raises RunFolderError naming file and line where any other line is not a row: somebody else wrote here.
        """
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            torn = number == len(lines) and not text.endswith("\n")
            if not torn and not _is_row(line):
                raise RunFolderError(f"{self.path}:{number}: not a row of metrics; mend or delete the line")
        self.rows, self._written = list(rows), len(rows)
        if rows or lines:
            atomic_file.write(self.path, "".join(row + "\n" for row in rows))


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and type(row.get("step")) is int
