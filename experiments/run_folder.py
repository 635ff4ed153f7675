"""The files of one run, and the only code that writes them: atomically, and by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import atomic_file
from errors import RunFolderError, WriteError
from experiments.config import FIELDS, Config, from_dict, get, read_yaml


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

    def freeze(self, config: Config) -> None:
        """Creates the folder with its ``config.yaml``; one that is there keeps every setting that decides numbers.

        Raises RunFolderError where the folder cannot be written or holds another config.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if (self.path / "config.yaml").exists():
                frozen = self.config()
                for key, f in FIELDS.items():
                    if f.metadata["scientific"] and key != "init" and get(frozen, key) != get(config, key):
                        raise RunFolderError(
                            f"{self.path}: its config.yaml says {key}={get(frozen, key)}, not {get(config, key)}; "
                            "it was edited, or another version of the suite wrote it"
                        )
            text = yaml.safe_dump(config.as_dict(), sort_keys=False)
            atomic_file.write(self.path / "config.yaml", text)
        except OSError as error:
            raise RunFolderError(f"cannot write {error.filename or self.path}: {error.strerror}") from None
        except WriteError as error:
            raise RunFolderError(str(error)) from None

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
        self.write_json("state.json", {"state": state, **details, "updated": time.time(), "host": socket.gethostname()})

    def finished(self) -> dict[str, Any]:
        """The summary of a finished run, else empty."""
        summary = self.read_json("summary.json")
        return summary if summary.get("run") == self.id else {}

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Holds the run for this process. Raises RunFolderError, naming the holder, while another process has it.

        The lock is the kernel's and goes with the process, so a killed run leaves no claim behind.
        """
        with (self.path / "claim").open("a+") as file:
            for attempt in range(5):  # a status command may hold the lock for an instant
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == 4:
                        file.seek(0)
                        raise RunFolderError(
                            f"{self.id} is being run by {file.read().strip() or 'another process'}"
                        ) from None
                    time.sleep(0.05)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def claimed(self) -> bool:
        """Whether a live process on this machine holds the run. Changes nothing."""
        try:
            with (self.path / "claim").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False


class MetricsLog:
    """``metrics.jsonl``: append-only, one row per evaluation, keyed by step."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_after(self, step: int) -> None:
        """Drops rows past ``step`` and a torn last line, so that a resumed run continues a log it agrees with."""
        if not self.path.exists():
            return
        kept = []
        lines = self.path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:
                if number == len(lines):
                    break
                raise RunFolderError(f"{self.path}:{number}: not a JSON line") from None
            if row["step"] <= step:
                kept.append(line + "\n")
        atomic_file.write(self.path, "".join(kept))
