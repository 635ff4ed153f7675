"""Frozen copies of the code: runs are started from one, so that edits of the checkout touch nothing that was launched.

Copies lie below ``runs_dir/code``, each in a folder named by the hash of its content.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import atomic_file
from errors import ConfigError, WriteError
from experiments.config import ROOT
from experiments.folder.provenance import CHECKOUT, CODE, checkout, git

COPIES = "code"  # below the folder of the runs
FOLDERS = ("atm", "experiments", "measurements", "sweeps")
MODULES = (
    "ask_program.py", "atomic_file.py", "errors.py", "output.py", "pasted_command.py", "run_format.py",
    "untrusted_files.py", "yaml_files.py",
    # what a run needs of a room that only reads
    "results/__init__.py", "results/file_hash.py", "results/plans.py", "results/records.py",
    "results/run_folders/__init__.py", "results/run_folders/numbers.py", "results/run_folders/summary_file.py",
)  # fmt: skip
ENTRY = Path("experiments/__main__.py")  # starts a run


def take(runs_dir: Path, root: Path = ROOT) -> Path:
    """Copies the sources of a checkout below ``runs_dir``, unless the copy exists, and returns its folder.

    The commit is noted in the copy, which has no history. Raises WriteError.
    """
    content = {path: (root / path).read_bytes() for path in _sources(root)}
    return _store(runs_dir / COPIES, content, checkout(root))


def take_at(runs_dir: Path, commit: str, root: Path = ROOT) -> Path:
    """``take`` of a commit of the checkout's history. Raises ConfigError for a commit that git does not know."""
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}") or b""
    full = found.decode().strip()
    packed = git(root, "archive", "--format=tar", full) if full else None
    if packed is None:
        raise ConfigError(f"--at {commit}: git knows no such commit in {root}")
    content = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and _is_source(path) and (file := archive.extractfile(member)):
                content[path] = file.read()
    if ENTRY not in content:
        raise ConfigError(f"--at {commit}: that commit has no {ENTRY}, with which runs are started")
    return _store(runs_dir / COPIES, content, {"commit": full, "dirty": False})


def _store(folder: Path, content: Mapping[Path, bytes], origin: Mapping[str, object]) -> Path:
    content = {**content, Path(CHECKOUT): json.dumps(origin).encode() + b"\n"}
    digest = hashlib.sha256()
    for path, data in sorted(content.items()):
        digest.update(path.as_posix().encode() + b"\0" + len(data).to_bytes(8, "big") + data)
    copy = folder / digest.hexdigest()[:16]
    if copy.is_dir() and all((copy / path).is_file() for path in content):
        with suppress(OSError):
            os.utime(copy)  # `prune` keeps copies that were just taken
        return copy
    temporary = folder / f".{copy.name}.{secrets.token_hex(4)}.tmp"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file.private():
            for path, data in content.items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_bytes(data)
                (temporary / path).chmod(0o400)  # guards against edits by mistake
            if copy.is_dir():  # the clean-up of a site has removed some of its files
                for path in content:
                    (copy / path).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / path).replace(copy / path)
            else:
                temporary.rename(copy)
    except OSError as error:
        raise WriteError(f"cannot copy the code to {copy}: {atomic_file.reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copy


def _sources(root: Path) -> list[Path]:
    paths = [path.relative_to(root) for folder in FOLDERS for path in (root / folder).rglob("*")]
    return sorted(path for path in [*paths, *map(Path, MODULES)] if _is_source(path))


def _is_source(path: Path) -> bool:
    return path.suffix in CODE and (path.parts[0] in FOLDERS or str(path) in MODULES)
