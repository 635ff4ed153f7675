"""Reads ``metrics.jsonl``: many clean logs at once with pyarrow, any other line by line. Both give the same numbers.

A clean log is one that the engine wrote and nobody touched: ASCII, one object to a line, the keys of its first and last
line, no line torn. Whatever else is found takes the slow way, which names what it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.reading.digits import rounded_all
from results.reading.numbers import is_number, whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MISSING = -(2**63)  # the epoch of a row that has none
SPECIAL = (b"\\", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")  # escapes, and what ends a line for Python alone
AT_ONCE = 2**30  # bytes that pyarrow is given in one go, whose offsets have 32 bits


@dataclass
class Log:
    """The metrics of one run: steps and epochs [rows], values [rows, names] with NaN where a row has no such metric.

    names are in the order of the first row's keys, then the last row's, then as they appear; last_line is the line
    (from 1) of the last good row.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    epochs: np.ndarray
    values: np.ndarray
    last_line: int | None = None


def read_logs(contents: Mapping[str, bytes]) -> dict[str, tuple[Log, list[str]]]:
    """By run: its log, and warnings about lines that are no rows."""
    return {
        run: (log, []) if log is not None else read_lines(contents[run], f"{run}/metrics.jsonl")
        for run, log in zip(contents, read_clean(list(contents.values())))
    }


def read_lines(content: bytes, where: str) -> tuple[Log, list[str]]:
    """Line by line: a torn last line is ignored, any other bad line is named and left out."""
    text = content.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    rows, last, warnings, lines = [], None, [], text.splitlines()
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
            last = number
        else:
            warnings.append(f"{where}:{number}: not a row of metrics; left out")
    return _from_rows(rows, last), warnings


def read_clean(contents: Sequence[bytes]) -> list[Log | None]:
    """With pyarrow, all logs of equal keys at once; None for every log that is not clean."""
    found: list[Log | None] = [None] * len(contents)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, content in enumerate(contents):
        keys = _keys(content)
        if keys:
            groups.setdefault(keys, []).append(place)
    for keys, places in groups.items():
        group = [contents[place] for place in places]
        together = _parsed(group, keys)
        if together is not None:
            found_here: list[Log | None] = [*together]
        else:  # one of them is not clean: which?
            alone = [_parsed([content], keys) for content in group]
            found_here = [logs[0] if logs else None for logs in alone]
        for place, log in zip(places, found_here):
            found[place] = log
    return found


def _keys(content: bytes) -> tuple[str, ...]:
    """The keys of the first and the last line where the bytes look clean, else nothing."""
    if not (content.startswith(b"{") and content.endswith(b"}\n") and content.isascii()):
        return ()
    # each line starts as the first does, and ends, with a brace; with as many objects as lines, each line is one object
    if content.count(b"\n") - 1 != content.count(b"}\n" + content[:8]) or any(sign in content for sign in SPECIAL):
        return ()
    first = content[: content.index(b"\n")]
    last = content[content.rfind(b"\n", 0, -1) + 1 :]
    try:
        keys = {**json.loads(first), **json.loads(last)}
    except (ValueError, RecursionError):
        return ()
    clean = "step" in keys and all("/" in key or key in ("step", "epoch") for key in keys)
    return tuple(keys) if clean else ()


def _parsed(contents: list[bytes], keys: tuple[str, ...]) -> list[Log] | None:
    """One log per content; None where any of them holds what json.loads would read otherwise, or not at all."""
    import numpy as np

    table, lines = _table(contents, keys), [content.count(b"\n") for content in contents]
    if table is None or table.num_rows != sum(lines) or table.column("step").null_count:
        return None
    names = [key for key in keys if "/" in key]
    values = np.empty((table.num_rows, len(names)))
    for place, name in enumerate(names):
        values[:, place] = table.column(name).to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        absent = sum(table.column(name).null_count for name in names)
        if np.count_nonzero(finite) != values.size - absent and not _python_nan(contents):
            return None
        values[~finite] = np.nan
    if np.signbit(values[values == 0]).any():
        return None  # -0 is the integer 0 for Python, and a float for pyarrow
    values = rounded_all(values)
    steps, epochs = table.column("step").to_numpy(), np.full(table.num_rows, MISSING)
    if "epoch" in keys:
        epochs = table.column("epoch").fill_null(MISSING).to_numpy()
    ends = np.cumsum(lines).tolist()
    return [
        _without_empty(Log(tuple(names), steps[end - n : end], epochs[end - n : end], values[end - n : end], n))
        for end, n in zip(ends, lines)
    ]


def _table(contents: list[bytes], keys: tuple[str, ...]) -> pa.Table | None:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    size = sum(map(len, contents))
    if size > AT_ONCE:
        return None
    schema = pa.schema([(key, pa.float64() if "/" in key else pa.int64()) for key in keys])
    try:
        return arrow_json.read_json(
            pa.BufferReader(b"".join(contents)),
            arrow_json.ReadOptions(use_threads=False, block_size=size + 1),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, ValueError):
        return None


def _python_nan(contents: list[bytes]) -> bool:
    """Whether what is not finite is spelled as json.loads reads it; pyarrow also reads Inf and -NaN."""
    return all(content.count(b"Inf") == content.count(b"Infinity") and b"-NaN" not in content for content in contents)


def _from_rows(rows: list[dict[str, Any]], last_line: int | None) -> Log:
    import numpy as np

    ordered = [*rows[:1], *rows[-1:], *rows]
    names = tuple(dict.fromkeys(key for row in ordered for key in row if "/" in key))
    values = np.full((len(rows), len(names)), np.nan)
    for place, row in enumerate(rows):
        values[place] = [float(row[name]) if is_number(row.get(name)) else np.nan for name in names]
    steps = np.array([whole(row["step"]) for row in rows], dtype=np.int64)
    epochs = np.array([_epoch(row.get("epoch")) for row in rows], dtype=np.int64)
    return _without_empty(Log(names, steps, epochs, rounded_all(values), last_line))


def _epoch(value: Any) -> int:
    found = whole(value)
    return MISSING if found is None or found != value else found


def _without_empty(log: Log) -> Log:
    """Without metrics that have no number anywhere."""
    import numpy as np

    if not len(log.values) or not np.isnan(log.values[-1]).any():  # whatever is in the last row has a number
        return log
    kept = ~np.isnan(log.values).all(axis=0)
    names = tuple(name for name, keep in zip(log.names, kept) if keep)
    return Log(names, log.steps, log.epochs, log.values[:, kept], log.last_line)
