"""Recorded runs as rows of one Arrow table, the form in which they are cached.

A row holds everything about a run that does not depend on the arm it is planned for; its log is three lists in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from errors import UnreadableError
from results.run_folders.metrics_log import MISSING, LoggedMetrics, read_lines, read_logs
from results.run_folders.numbers import rounded, whole
from results.run_folders.recorded_run import FILES, RecordedRun, read_run
from run_format import METRICS
from untrusted_files import content

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

STAMP = 4  # numbers that stamp one file
STAMP_TIMES = (1, 2)  # which of them are times


class PlannedFolder(NamedTuple):
    """A run as it is planned, with the stamps of its files: what is read again when any of this changes.

    Of each file: its size, the times in ns of the last change of its content and of its inode (the latter cannot be
    set back), and its inode; -1 where there is no file.
    """

    run: str
    seed: int
    protocol: str
    stamps: tuple[int, ...]


def stamps(folder: str) -> tuple[int, ...]:
    """Stamps the files that are read. It is called before reading: a later change gives another stamp."""
    numbers: list[int] = []
    for name in FILES:
        try:
            status = os.stat(f"{folder}/{name}")
            numbers += (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        except OSError:
            numbers += (-1,) * STAMP
    return tuple(numbers)


class Rows:
    """The runs of a table with the columns of ``schema``: read, cached or both."""

    def __init__(self, table: pa.Table):
        self.table = table.combine_chunks()

    def take(self, rows: Sequence[int]) -> pa.Table:
        import pyarrow as pa

        return self.table.take(pa.array(rows, pa.int64()))

    @cached_property
    def runs(self) -> list[str]:
        return self._texts("run")

    @cached_property
    def configs(self) -> list[str]:
        return self._texts("config")

    @cached_property
    def names(self) -> list[str]:
        """Of each run the names of its metrics, as a JSON list."""
        return self._texts("names")

    @cached_property
    def finals(self) -> list[int]:
        """Of each run how many of its numbers, the last ones, are the summary's."""
        return self._texts("finals")

    def facts(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What ``RecordedRun.facts`` gave for these rows."""
        texts = self._texts("facts")
        content: list[dict[str, Any]] = json.loads(f"[{','.join(texts[row] for row in rows)}]")
        return content

    def log(self, row: int) -> LoggedMetrics:
        """The log of a run, its summary's values at the end."""
        names = tuple(json.loads(self.names[row]))
        steps, epochs, values = (numbers[starts[row] : starts[row + 1]] for starts, numbers in self._logs)
        return LoggedMetrics(names, steps, epochs, values.reshape(-1, len(names)) if names else values.reshape(0, 0))

    @cached_property
    def _logs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of steps, epochs and values: where those of each run begin, and the numbers of all runs."""
        lists = [_array(self.table.column(name)) for name in ("steps", "epochs", "values")]
        return [(array.offsets.to_numpy(), array.values.to_numpy()) for array in lists]  # offsets count in `values`

    def _texts(self, column: str) -> list[Any]:
        values: list[Any] = self.table.column(column).to_pylist()
        return values


def schema() -> pa.Schema:
    """Facts and names are JSON; values are written row by row, one for each name."""
    import pyarrow as pa

    return pa.schema([
        ("run", pa.string()), ("seed", pa.int64()), ("protocol", pa.string()),
        ("stamps", pa.list_(pa.int64(), STAMP * len(FILES))),
        ("facts", pa.string()), ("config", pa.string()), ("names", pa.string()), ("finals", pa.int64()),
        ("steps", pa.large_list(pa.int64())), ("epochs", pa.large_list(pa.int64())),
        ("values", pa.large_list(pa.float64())),
    ])  # fmt: skip


def read(runs_dir: str, folders: Sequence[PlannedFolder]) -> pa.Table:
    """Reads the folders, each into a row."""
    import numpy as np
    import pyarrow as pa

    contents: dict[str, bytes] = {}
    unreadable: dict[str, tuple[LoggedMetrics, list[str]]] = {}
    for folder in folders:
        try:
            contents[folder.run] = content(f"{runs_dir}/{folder.run}/{METRICS}")
        except FileNotFoundError:
            pass
        except UnreadableError as error:
            unreadable[folder.run] = (read_lines(b"", "")[0], [str(error).replace(f"{runs_dir}/", "", 1)])
    logs = read_logs(contents) | unreadable
    rows: list[dict[str, Any]] = []
    for folder in folders:
        recorded = read_run(f"{runs_dir}/{folder.run}", folder.seed, folder.protocol, logs)
        log = with_finals(recorded)
        rows.append({
            **folder._asdict(), "facts": json.dumps(recorded.facts()), "config": recorded.config,
            "names": json.dumps(log.names), "finals": len(recorded.summary.get("metrics", ())),
            "steps": log.steps, "epochs": log.epochs, "values": log.values.ravel(),
        })  # fmt: skip
    columns = []
    for field in schema():
        cells = [row[field.name] for row in rows]
        if pa.types.is_large_list(field.type):
            offsets = np.cumsum([0, *map(len, cells)])
            columns.append(pa.LargeListArray.from_arrays(offsets, np.concatenate(cells)))
        else:
            columns.append(pa.array(cells, field.type))
    return pa.table(columns, schema=schema())


def with_finals(recorded: RecordedRun) -> LoggedMetrics:
    """The log and, in a row of their own behind it, the summary's values, which replace the log's at the same step."""
    import numpy as np

    empty = np.empty(0, np.int64)
    log, summary = recorded.log or LoggedMetrics((), empty, empty, np.empty((0, 0))), recorded.summary
    if not summary:
        return log
    finals = {name: rounded(float(value)) for name, value in summary["metrics"].items()}
    names = tuple(dict.fromkeys((*log.names, *finals)))
    step, epoch = whole(summary["step"]), whole(summary.get("epochs"))
    values = np.full((len(log.steps) + 1, len(names)), np.nan)
    values[:-1, : len(log.names)] = log.values
    replaced = np.array([name in finals for name in names])
    values[np.ix_(np.append(log.steps == step, False), replaced)] = np.nan
    values[-1] = [finals.get(name, np.nan) for name in names]
    steps = np.append(log.steps, np.int64(step or 0))
    epochs = np.append(log.epochs, np.int64(MISSING if epoch is None else epoch))
    return LoggedMetrics(names, steps, epochs, values, log.last_line)


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
