"""Checkpoints that survive being interrupted while they are written, and a reader that trusts none of them."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import torch

import atomic_file
from errors import RunFolderError

KEPT = 2
log = logging.getLogger(__name__)


def save(folder: Path, state: dict[str, Any], step: int) -> Path:
    """Writes ``state`` as the checkpoint of ``step``, then its checksum, then removes all but the newest few."""
    path = folder / f"step-{step:09d}.pt"
    buffer = io.BytesIO()  # torch's own file writer hides a full disk behind a RuntimeError
    torch.save(state, buffer)
    content = buffer.getvalue()
    atomic_file.write(path, content)
    sidecar = {"sha256": hashlib.sha256(content).hexdigest(), "step": step}
    atomic_file.write(_sidecar(path), json.dumps(sidecar))
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
        _sidecar(old).unlink(missing_ok=True)
    return path


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest checkpoint whose checksum holds; None where none was ever written.

    Raises RunFolderError where there were checkpoints and none is valid: a run never silently starts over.
    """
    for stale in folder.glob(".*.tmp"):
        stale.unlink()
    paths = _newest_first(folder)
    for path in paths:
        try:
            expected = json.loads(_sidecar(path).read_text())["sha256"]
        except (OSError, ValueError, KeyError):
            log.warning("%s has no checksum: trying the one before", path.name)
            continue
        if _digest(path) != expected:
            log.warning("%s is damaged (its checksum differs): trying the one before", path.name)
            continue
        state = torch.load(path, map_location=device, weights_only=True)
        assert isinstance(state, dict)
        return state
    # a file without any checksum beside it is a first checkpoint that was never completed
    if completed := len(list(folder.glob("step-*.json"))):
        raise RunFolderError(f"{folder}: none of its {completed} checkpoints is valid; delete the folder to start over")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"), reverse=True)


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
