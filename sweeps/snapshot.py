"""The code that queued jobs will run: a copy of the sources, so that later edits touch nothing already submitted."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from pathlib import Path

from errors import WriteError
from experiments.config import ROOT
from experiments.folder.provenance import CHECKOUT, CODE, checkout

FOLDERS = ("atm", "experiments", "measurements", "sweeps")
MODULES = ("ask_program.py", "atomic_file.py", "errors.py", "run_format.py")


def take(folder: Path, root: Path = ROOT) -> Path:
    """Copies the sources into a folder named by their hash below ``folder``, unless it is there; returns it.

    The commit is noted in it, since a copy has no history. Raises WriteError.
    """
    content = {path: (root / path).read_bytes() for path in _files(root)}
    content[Path(CHECKOUT)] = json.dumps(checkout(root)).encode() + b"\n"
    digest = hashlib.sha256()
    for path, data in sorted(content.items()):
        digest.update(path.as_posix().encode() + b"\0" + len(data).to_bytes(8, "big") + data)
    snapshot = folder / digest.hexdigest()[:16]
    if snapshot.is_dir() and all((snapshot / path).is_file() for path in content):
        return snapshot
    temporary = folder / f".{snapshot.name}.{secrets.token_hex(4)}.tmp"
    try:
        for path, data in content.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(data)
            (temporary / path).chmod(0o444)  # what a job runs is not to be edited
        if snapshot.is_dir():  # a site's clean-up has taken some of its files
            for path in content:
                (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).replace(snapshot / path)
        else:
            temporary.rename(snapshot)
    except OSError as error:
        raise WriteError(f"cannot copy the code to {snapshot}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return snapshot


def _files(root: Path) -> list[Path]:
    found = []
    for name in (*FOLDERS, *MODULES):
        path = root / name
        found += [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in CODE]
    return sorted(path.relative_to(root) for path in found)
