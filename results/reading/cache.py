"""What was read from run folders, kept beside them in ``.collected/`` until a folder changes.

A chunk is a Feather file with one row per run. It is named by the code that read it and by the SHA-256 of its content,
never changed, and only believed where both hold and a run's files still have the stamps they had. So nothing here can
give a wrong number: a chunk that is torn, foreign, old or missing costs the time to read its runs again.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import atomic_file
from errors import WriteError
from results.reading import folders
from results.reading.chunk import Chunk, Place
from results.reading.folders import STAMP, TIMES, Wanted
from results.reading.threads import in_threads, workers

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, ENDING = ".collected", ".feather"
FORMAT = 2
CHUNK_RUNS = 256
RACY_NS = 2 * 10**9  # a file system's clock may tick this slowly: a later change could leave the same stamp
UNUSED_S = 2 * 24 * 3600  # chunks and temporary files that nobody has had a use for


class Cache:
    """The chunks of one sweep and protocol below one ``runs_dir``."""

    def __init__(self, runs_dir: Path, sweep: str):
        self.runs_dir = runs_dir
        self.folder = runs_dir / FOLDER / re.sub(r"[^\w.-]", "_", sweep)

    def of(self, runs: Mapping[str, int], protocol: str) -> dict[str, Place]:
        """Every run (id → seed): from a chunk where its files did not change, else read, and kept for the next time."""
        with ThreadPoolExecutor(1) as aside:  # while the files are looked at
            loading = aside.submit(self._load)
            root = str(self.runs_dir)
            wanted = [Wanted(run, seed, protocol, folders.stamps(f"{root}/{run}")) for run, seed in runs.items()]
            chunks = loading.result()
        found = _current(chunks, wanted)
        changed = [one for one in wanted if one.run not in found]
        if not changed:
            return found
        now = self._now()
        size = max(1, min(CHUNK_RUNS, -(-len(changed) // workers())))
        groups = [changed[start : start + size] for start in range(0, len(changed), size)]
        fresh = [Chunk(table) for table in in_threads(lambda group: folders.read(self.runs_dir, group), groups)]
        found |= {one.run: Place(chunk, row) for chunk, group in zip(fresh, groups) for row, one in enumerate(group)}
        if now is not None:
            with suppress(WriteError, OSError):
                self._keep(fresh, groups, chunks, found, now)
        return found

    def _load(self) -> list[Chunk]:
        """Newest first, so that a run that was read again is found where it was read last."""
        dated: list[tuple[int, Path]] = []
        for path in self.folder.glob(f"{version()}-*{ENDING}"):
            with suppress(OSError):  # another collector has taken it up into a chunk of its own
                dated.append((path.stat().st_mtime_ns, path))
        paths = [path for _, path in sorted(dated, reverse=True)]
        tables = in_threads(_table, paths)
        return [Chunk(table, path) for path, table in zip(paths, tables) if table is not None]

    def _now(self) -> int | None:
        """The time by the clock that dates the run folders' files; None where nothing can be written."""
        clock = self.folder / f".clock.{secrets.token_hex(4)}.tmp"
        try:
            self.folder.parent.mkdir(exist_ok=True)  # without the runs' folder there is nothing to keep
            self.folder.mkdir(exist_ok=True)
            clock.touch(exist_ok=False)
            try:
                return clock.stat().st_mtime_ns
            finally:
                clock.unlink()
        except OSError:
            return None

    def _keep(
        self,
        fresh: Sequence[Chunk],
        groups: Sequence[Sequence[Wanted]],
        chunks: Sequence[Chunk],
        found: Mapping[str, Place],
        now: int,
    ) -> None:
        """Writes what was read, but for files that changed a moment ago, and clears away what that supersedes.

        Small chunks are taken up into the new one, at most as many runs of each as it has already: a sweep that is
        looked at after every run has few chunks, and each run is written a few times only.
        """
        import pyarrow as pa

        settled = [[row for row, one in enumerate(group) if _settled(one, now)] for group in groups]
        parts = [
            chunk.table if len(rows) == len(chunk.runs) else chunk.table.take(rows)
            for chunk, rows in zip(fresh, settled)
            if rows
        ]
        kept, used = sum(map(len, settled)), _used(found)
        planned = set(found)
        mine = [chunk for chunk in chunks if planned.issuperset(chunk.runs)]
        obsolete = [chunk for chunk in mine if not used.get(id(chunk))]
        for chunk in sorted(mine, key=lambda chunk: len(used.get(id(chunk), ()))):
            rows = used.get(id(chunk), [])
            if rows and len(rows) <= kept < CHUNK_RUNS:
                parts.append(chunk.table.take(rows))
                obsolete.append(chunk)
                kept += len(rows)
        if kept <= CHUNK_RUNS and len(parts) > 1:
            parts = [pa.concat_tables(parts).combine_chunks()]
        written = set(in_threads(self._write, parts))
        for chunk in obsolete:
            if chunk.path is not None and chunk.path not in written:
                with suppress(OSError):
                    chunk.path.unlink()
        self._sweep(keep={chunk.path for chunk in chunks} | written)

    def _write(self, table: pa.Table) -> Path:
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        content = sink.getvalue()
        path = self.folder / f"{version()}-{hashlib.sha256(content).hexdigest()}{ENDING}"
        # a chunk that a power cut tears is not believed, so nothing need wait for the disk
        with atomic_file.writing(path, durable=False) as file:
            file.write(content)
        return path

    def _sweep(self, keep: set[Path | None]) -> None:
        """Removes what writers that were killed, other versions of the code and other plans left here long ago."""
        for path in self.folder.iterdir():
            with suppress(OSError):
                if path not in keep and time.time() - path.stat().st_mtime > UNUSED_S:
                    path.unlink()


@cache
def version() -> str:
    """Of the form of a chunk, and of the code that fills it."""
    digest = hashlib.sha256(f"{FORMAT}".encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _table(path: Path) -> pa.Table | None:
    """The chunk's content if it is what its name says; never mapped from the file, which may be on another machine."""
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            # memory that goes back to the system when it is not needed any more, unlike that of many small pieces
            memory = mmap.mmap(-1, max(1, path.stat().st_size))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            if file.readinto(memory) != len(memory):
                return None
        if path.name != f"{version()}-{hashlib.sha256(memory).hexdigest()}{ENDING}":
            return None
        table = pa.ipc.open_file(pa.py_buffer(memory)).read_all()
        return table if table.schema.equals(folders.schema()) else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def _current(chunks: Iterable[Chunk], wanted: Sequence[Wanted]) -> dict[str, Place]:
    """The wanted runs whose files are as they were when they were read."""
    import numpy as np

    found: dict[str, Place] = {}
    if not wanted:
        return found
    places = {one.run: place for place, one in enumerate(wanted)}
    stamps = np.array([one.stamps for one in wanted], dtype=np.int64)
    for chunk in chunks:
        runs, seeds, protocols = chunk.runs, chunk.list("seed"), chunk.list("protocol")
        rows = [row for row, run in enumerate(runs) if run in places and run not in found]
        if not rows:
            continue
        same = (chunk.stamps()[rows] == stamps[[places[runs[row]] for row in rows]]).all(axis=1)
        for row, unchanged in zip(rows, same):
            one = wanted[places[runs[row]]]
            if unchanged and (seeds[row], protocols[row]) == (one.seed, one.protocol):
                found[one.run] = Place(chunk, row)
    return found


def _settled(one: Wanted, now: int) -> bool:
    return max(max(one.stamps[time::STAMP]) for time in TIMES) < now - RACY_NS


def _used(found: Mapping[str, Place]) -> dict[int, list[int]]:
    """Rows in use, by the identity of the chunk."""
    used: dict[int, list[int]] = {}
    for place in found.values():
        used.setdefault(id(place.chunk), []).append(place.row)
    return used
