"""Checkpoints with checksums: writing one may be interrupted at any moment, and a damaged one is never loaded."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

import atomic_file
from errors import RunFailed, RunFolderError, UnreadableError, WriteError
from results.file_hash import sha256
from untrusted_files import keys_and_values, listed

DAMAGED = ".damaged"
log = logging.getLogger("experiments")


class HashedFile:
    """A file that is written once, with the SHA-256 of what was written; keeps the error that torch would hide."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256 = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save(folder: Path, state: dict[str, Any], name: str, lasting: bool = False) -> Path:
    """Writes ``state``, then its checksum beside it. Raises WriteError and leaves earlier checkpoints as they were."""
    path = folder / f"{name}.pt"
    with atomic_file.writing(path) as file:
        hashed = HashedFile(file)
        try:
            torch.save(state, cast(IO[bytes], hashed))
        except RuntimeError:
            raise hashed.error or RuntimeError(f"{path}: the state cannot be serialised") from None
    sidecar = {"sha256": hashed.sha256.hexdigest(), "step": state["step"], "lasting": lasting}
    atomic_file.write(_sidecar(path), json.dumps(sidecar))
    return path


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest ``keep`` checkpoints and the lasting ones, and files set aside as damaged."""
    paths = _newest_first(folder)
    for old in paths[keep:]:
        if not _read_sidecar(old).get("lasting"):
            old.unlink()
            _sidecar(old).unlink(missing_ok=True)
    for damaged in listed(folder, f"*{DAMAGED}"):
        damaged.unlink()


@dataclass
class NewestCheckpoint:
    """path: of the checkpoint to go on from; notes: what a reader should know about newer ones that are damaged."""

    path: Path | None
    notes: list[str]


def newest_valid(folder: Path) -> NewestCheckpoint:
    """The newest checkpoint whose checksum holds; its path is None where none was ever completed.

    Damaged ones are renamed, so that they no longer count among the newest. Raises RunFolderError where there were
    checkpoints and none is valid: a run never silently starts over.
    """
    for stale in listed(folder, atomic_file.TEMPORARY):
        stale.unlink()
    notes: list[str] = []
    damaged: list[Path] = []
    newest = None
    for path in _newest_first(folder):
        expected = _read_sidecar(path).get("sha256")
        if expected is not None and sha256(path) == expected:
            newest = path
            break
        damaged.append(path)
        if expected is not None:
            notes.append(f"checkpoint {path.name} is damaged (its checksum differs): resumed from the one before")
        else:
            log.warning("checkpoint %s has no checksum: writing it was interrupted", path.name)
    # a file without any checksum beside it is a first checkpoint that was never completed
    if newest is None and (completed := len(listed(folder, "step-*.json"))):
        raise RunFolderError(f"{folder}: none of its {completed} checkpoints is valid; delete the folder to start over")
    for path in damaged:
        path.rename(path.with_name(path.name + DAMAGED))
    for sidecar in listed(folder, "step-*.json"):
        if not sidecar.with_suffix(".pt").exists():
            sidecar.unlink()
    for note in notes:
        log.warning(note)
    return NewestCheckpoint(newest, notes)


def valid_of_step(folder: Path, step: int) -> Path | None:
    """The newest checkpoint of a step whose checksum holds. Changes nothing."""
    of_step = (path for path in _newest_first(folder) if path.name.startswith(f"step-{step:09d}-"))
    return next((path for path in of_step if _read_sidecar(path).get("sha256") == sha256(path)), None)


def older_valid(path: Path) -> Path | None:
    """The newest checkpoint before ``path`` whose checksum holds. Changes nothing."""
    older = (candidate for candidate in _newest_first(path.parent) if candidate.name < path.name)
    return next((candidate for candidate in older if _read_sidecar(candidate).get("sha256") == sha256(candidate)), None)


def read(path: Path) -> dict[str, Any]:
    """The state, on the CPU. Raises RunFolderError where reading it would run code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a file that is no checkpoint can raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunFolderError(f"{path}: not a checkpoint that can be read safely: {first}") from None
    if not isinstance(state, dict):
        raise RunFolderError(f"{path}: not a checkpoint of a run")
    return state


def snapshot(state: Any) -> Any:
    """A copy of a state on the CPU, which further training does not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state


class Saver:
    """Writes checkpoints in a thread of its own while training goes on, one at a time.

    A save that fails (disk full) is reported and the run goes on; ``tolerated`` failures in a row end it.
    """

    def __init__(self, folder: Path, keep: int, tolerated: int):
        self.folder, self.keep, self.tolerated = folder, keep, tolerated
        self.newest: str | None = None  # name of the newest complete checkpoint
        self.problem: str | None = None  # why the last save failed
        self.failures = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[str] | None = None

    def start(self, state: dict[str, Any], name: str, lasting: bool) -> None:
        """Begins to save a snapshot of ``state``, unless the checkpoint of that name is the newest on disk already."""
        self.settle(wait=True)
        if name == self.newest:
            return
        self._pending = self._thread.submit(self._save, snapshot(state), name, lasting)

    def settle(self, wait: bool = False) -> bool:
        """Records how a save ended; returns whether none is under way. Raises RunFailed after too many failures."""
        if self._pending is None:
            return True
        if not wait and not self._pending.done():
            return False
        pending, self._pending = self._pending, None
        try:
            self.newest, self.problem, self.failures = pending.result(), None, 0
        except WriteError as error:
            self._fail(error)
        return True

    def _fail(self, error: WriteError) -> None:
        """Reports a save that failed. Raises RunFailed after too many in a row."""
        self.failures += 1
        self.problem = str(error)
        newest = f"the newest checkpoint is {self.newest}" if self.newest else "there is no checkpoint yet"
        log.warning("%s; failure %d of %d in a row, %s", error, self.failures, self.tolerated, newest)
        if self.failures >= self.tolerated:
            raise RunFailed(f"{self.failures} checkpoints in a row could not be written: {error}")

    def _save(self, state: dict[str, Any], name: str, lasting: bool) -> str:
        save(self.folder, state, name, lasting)
        try:
            prune(self.folder, self.keep)
        except OSError as error:
            log.warning("cannot remove old checkpoints: %s", error)
        return name

    def close(self) -> None:
        """Waits for a save that is under way."""
        self._thread.shutdown(wait=True)


def _newest_first(folder: Path) -> list[Path]:
    return listed(folder, "step-*.pt")[::-1]


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        return keys_and_values(_sidecar(path))
    except (FileNotFoundError, UnreadableError):
        return {}
