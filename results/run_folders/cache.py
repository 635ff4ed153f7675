"""Keeps what was read from run folders beside them, in ``.collected/``, until a folder changes.

A sweep and protocol have one file: an Arrow table with a row per run, followed by a SHA-256 over the table and over the
code that filled it. A row is used only where that holds and the run's files still have their stamps, so a file that is
torn, foreign, old or missing can give no wrong number: it costs the time to read the runs again.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import atomic_file
from errors import WriteError
from results.run_folders import rows
from results.run_folders.rows import STAMP, STAMP_TIMES, PlannedFolder, Rows

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = ".collected"
THREADS, AT_ONCE = 8, 16  # most threads, and how many folders one of them reads together
RACY_NS = 2 * 10**9  # a file system's clock may tick this slowly: a later change could leave the same stamp
DIGEST = hashlib.sha256().digest_size


def read_runs(runs_dir: Path, name: str, runs: Mapping[str, int], protocol: str) -> tuple[Rows, dict[str, int]]:
    """Every run (id → seed) as a row, and run id → row; ``name`` is that of the sweep and protocol.

    Runs whose files did not change come from the cache; the others are read, and cached for the next time.
    """
    import pyarrow as pa

    path = runs_dir / FOLDER / f"{re.sub(r'[^.a-zA-Z0-9_-]', '_', name)}.arrow"
    folders = [PlannedFolder(run, seed, protocol, rows.stamps(f"{runs_dir}/{run}")) for run, seed in runs.items()]
    cached = Rows(_load(path) or rows.schema().empty_table())
    unchanged = _unchanged(cached, folders)
    changed = [folder for folder in folders if folder.run not in unchanged]
    if not changed:
        return cached, unchanged
    now = _clock(runs_dir)  # before reading
    groups = [changed[start : start + AT_ONCE] for start in range(0, len(changed), AT_ONCE)]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        fresh = pa.concat_tables(threads.map(partial(rows.read, str(runs_dir)), groups))
    superseded = {folder.run for folder in changed}
    kept = [
        row
        for row, run in enumerate(cached.runs)
        if run in unchanged or (run not in superseded and (runs_dir / run).is_dir())  # of another plan of this sweep
    ]
    everything = Rows(pa.concat_tables([cached.take(kept), fresh]))
    del cached, fresh  # each may hold the logs of 10,000 runs
    settled = [row for row, folder in enumerate(changed, len(kept)) if now is not None and _settled(folder, now)]
    if settled:
        stored = [*range(len(kept)), *settled]
        with suppress(WriteError):
            _store(path, everything.table if len(stored) == len(everything.runs) else everything.take(stored))
    return everything, {run: row for row, run in enumerate(everything.runs) if run in runs}


@cache
def version() -> bytes:
    """Identifies the code that fills the table."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.digest()


def _load(path: Path) -> pa.Table | None:
    import pyarrow as pa

    try:
        content = memoryview(path.read_bytes())
        table, digest = content[:-DIGEST], content[-DIGEST:]
        if hashlib.sha256(version() + hashlib.sha256(table).digest()).digest() != digest:
            return None
        return pa.ipc.open_file(pa.py_buffer(table)).read_all()
    except OSError:
        return None


def _store(path: Path, table: pa.Table) -> None:
    """Replaces the cache; a power cut may tear it, which the digest shows, so nothing waits for the disk."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    content = sink.getvalue()
    with atomic_file.writing(path, durable=False) as file:
        file.write(content)
        file.write(hashlib.sha256(version() + hashlib.sha256(content).digest()).digest())


def _unchanged(cached: Rows, folders: Sequence[PlannedFolder]) -> dict[str, int]:
    """Run id → row of the runs that are planned, and whose files are, as they were when they were cached."""
    planned = {folder.run: folder for folder in folders}
    columns = (cached.table.column(name).to_pylist() for name in ("seed", "protocol", "stamps"))
    return {
        run: row
        for row, (run, seed, protocol, stamps) in enumerate(zip(cached.runs, *columns))
        if planned.get(run) == (run, seed, protocol, tuple(stamps))
    }


def _clock(runs_dir: Path) -> int | None:
    """The time by the clock that dates the run folders' files; None where nothing can be written."""
    try:
        (runs_dir / FOLDER).mkdir(exist_ok=True)  # not its parents: without a runs folder there is nothing to cache
        with tempfile.TemporaryFile(dir=runs_dir / FOLDER) as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _settled(folder: PlannedFolder, now: int) -> bool:
    """Whether no file of the run was changed so recently that a later change could leave the same stamp."""
    return max(max(folder.stamps[time::STAMP]) for time in STAMP_TIMES) < now - RACY_NS
