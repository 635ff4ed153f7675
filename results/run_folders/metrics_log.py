"""Reads ``metrics.jsonl``: clean logs several at once with pyarrow, any other log line by line.

A clean log is one that the engine wrote and nobody touched: one object per line, with the keys of its first and last
line and no torn line. Both ways give the same numbers; the slow one also names the lines that it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.run_folders.numbers import whole
from untrusted_files import is_number

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MISSING = -(2**63)  # the epoch of a row that has none
NOT_JSON = (b"Inf", b"-N")  # pyarrow also reads spellings of infinity and NaN that json.loads refuses


@dataclass
class LoggedMetrics:
    """The metrics of one run: steps and epochs [rows], values [rows, names] with NaN where a row has no number.

    ``names`` are in the order of the first row's keys, then the last row's, then as they appear. ``last_line`` is the
    line (from 1) of the last good row.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    epochs: np.ndarray
    values: np.ndarray
    last_line: int | None = None


def read_logs(contents: Mapping[str, bytes]) -> dict[str, tuple[LoggedMetrics, list[str]]]:
    """By run id its log, and a warning about each line that is no row of metrics."""
    runs_of: dict[tuple[str, ...], list[str]] = {}
    for run, content in contents.items():
        runs_of.setdefault(_keys(content), []).append(run)
    clean: dict[str, LoggedMetrics] = {}
    for keys, runs in runs_of.items():
        parsed = _parsed([contents[run] for run in runs], keys)
        if parsed is not None:
            clean |= zip(runs, parsed)
        else:  # at least one of them is not clean
            clean |= {run: log for run in runs for log in _parsed([contents[run]], keys) or ()}
    return {
        run: (clean[run], []) if run in clean else read_lines(content, f"{run}/metrics.jsonl")
        for run, content in contents.items()
    }


def read_lines(content: bytes, where: str) -> tuple[LoggedMetrics, list[str]]:
    """Reads line by line: a torn last line is ignored, any other bad line is named and left out."""
    text = content.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    rows, last_line, warnings, lines = [], None, [], text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            good = isinstance(row, dict) and whole(row.get("step")) is not None
            "".join(row if good else ()).encode()  # half a surrogate pair is a ValueError too
        except (ValueError, RecursionError):
            if number == len(lines) and not text.endswith("\n"):
                break
            good = False
        if good:
            rows.append(row)
            last_line = number
        else:
            warnings.append(f"{where}:{number}: not a row of metrics; left out")
    return _from_rows(rows, last_line), warnings


def _keys(content: bytes) -> tuple[str, ...]:
    """The keys of the first and the last line where the log looks clean, otherwise none."""
    if not (content.startswith(b"{") and content.endswith(b"}\n")):
        return ()
    first = content[: content.index(b"\n")]
    last = content[content.rfind(b"\n", 0, -1) + 1 :]
    try:
        keys = {**json.loads(first), **json.loads(last)}
    except (ValueError, RecursionError):
        return ()
    clean = "step" in keys and all(key.isascii() and ("/" in key or key in ("step", "epoch")) for key in keys)
    return tuple(keys) if clean else ()


def _parsed(contents: Sequence[bytes], keys: tuple[str, ...]) -> list[LoggedMetrics] | None:
    """The log of each content; None where any of them holds what json.loads would read otherwise."""
    import numpy as np

    together, lines = b"".join(contents), [content.count(b"\n") for content in contents]
    # lines that start as the first does and end with a brace: with as many of them as rows, each line is one object
    even = all(content.count(b"}\n" + content[:8]) == count - 1 for content, count in zip(contents, lines))
    table = _table(together, keys) if keys and even else None
    if table is None or table.num_rows != sum(lines) or table.column("step").null_count:
        return None
    names = tuple(key for key in keys if "/" in key)
    values = np.empty((table.num_rows, len(names)))
    for position, name in enumerate(names):
        values[:, position] = table.column(name).to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        if any(spelling in together for spelling in NOT_JSON):
            return None
        values[~finite] = np.nan
    steps, epochs = table.column("step").to_numpy(), np.full(table.num_rows, MISSING)
    if "epoch" in keys:
        epochs = table.column("epoch").fill_null(MISSING).to_numpy()
    ends = np.cumsum(lines).tolist()
    parts = [(slice(end - count, end), count) for end, count in zip(ends, lines)]
    return [_without_empty(LoggedMetrics(names, steps[rows], epochs[rows], values[rows], n)) for rows, n in parts]


def _table(content: bytes, keys: tuple[str, ...]) -> pa.Table | None:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = pa.schema([(key, pa.float64() if "/" in key else pa.int64()) for key in keys])
    try:
        return arrow_json.read_json(
            pa.BufferReader(content),
            arrow_json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, ValueError, OverflowError):
        return None


def _from_rows(rows: list[dict[str, Any]], last_line: int | None) -> LoggedMetrics:
    import numpy as np

    names = tuple(dict.fromkeys(key for row in [*rows[:1], *rows[-1:], *rows] for key in row if "/" in key))
    values = np.full((len(rows), len(names)), np.nan)
    for position, row in enumerate(rows):
        values[position] = [float(row[name]) if is_number(row.get(name)) else np.nan for name in names]
    steps = np.array([whole(row["step"]) for row in rows], dtype=np.int64)
    epochs = np.array([_epoch(row.get("epoch")) for row in rows], dtype=np.int64)
    return _without_empty(LoggedMetrics(names, steps, epochs, values, last_line))


def _epoch(value: Any) -> int:
    number = whole(value)
    return MISSING if number is None or number != value else number


def _without_empty(log: LoggedMetrics) -> LoggedMetrics:
    """The log without metrics that have no number in any row."""
    import numpy as np

    numeric = ~np.isnan(log.values).all(axis=0)
    if numeric.all():
        return log
    names = tuple(name for name, keep in zip(log.names, numeric) if keep)
    return LoggedMetrics(names, log.steps, log.epochs, log.values[:, numeric], log.last_line)
