"""Run folders as rows of one Arrow table, the form in which they are kept until they change.

Everything about a run that does not depend on the arm it is planned for is one row; its log is three lists in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results.reading.digits import rounded
from results.reading.metrics_log import MISSING, Log, read_logs
from results.reading.numbers import is_number, whole
from results.run_folder import DONE, FILES, RunFolder, content, read_run

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LOGS_AT_ONCE = 16  # parsed together: enough to hide the cost of a call, few enough to stay in the processor's cache
# per file of a run: its size, the times in ns of its content's and its inode's last change (the latter cannot be set
# back), its inode; -1 where there is none
Stamps = tuple[int, ...]
STAMP = 4
TIMES = (1, 2)  # where they are in a file's stamps


class Wanted(NamedTuple):
    """A run as it is planned, and its files as they are now."""

    run: str
    seed: int
    protocol: str
    stamps: Stamps


def stamps(folder: str) -> Stamps:
    """Of the files that are read. Taken before reading: what changes in between differs the next time."""
    found: list[int] = []
    for name in FILES:
        try:
            status = os.stat(f"{folder}/{name}")
            found += (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        except OSError:
            found += (-1,) * STAMP
    return tuple(found)


def schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([
        ("run", pa.string()), ("seed", pa.int64()), ("protocol", pa.string()),
        ("stamps", pa.list_(pa.int64(), STAMP * len(FILES))),
        ("facts", pa.string()), ("config", pa.string()), ("names", pa.string()), ("count", pa.int64()),
        ("finals", pa.int64()), ("steps", pa.large_list(pa.int64())), ("epochs", pa.large_list(pa.int64())),
        ("values", pa.large_list(pa.float64())),
    ])  # fmt: skip


def read(runs_dir: Path, wanted: Sequence[Wanted]) -> pa.Table:
    """One row per wanted run.

    facts: JSON of what the runs table and the warnings need; names: JSON list of metrics; values: row by row, one per
    name, NaN where a row has none; count: those that are there; finals: how many of them, the last, are the summary's.
    """
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    logs: list[Log] = []
    for start in range(0, len(wanted), LOGS_AT_ONCE):
        some = wanted[start : start + LOGS_AT_ONCE]
        contents = {}
        for one in some:
            with suppress(OSError):
                contents[one.run] = content(f"{runs_dir}/{one.run}/metrics.jsonl")
        parsed = read_logs(contents)
        for one in some:
            folder = read_run(runs_dir, one.run, one.seed, one.protocol, parsed)
            log = _with_finals(folder)
            logs.append(log)
            rows.append({
                **one._asdict(), "facts": json.dumps(_facts(folder)), "config": folder.config,
                "names": json.dumps(log.names), "finals": len(folder.summary.get("metrics", ())),
            })  # fmt: skip
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns |= _lists(logs)
    made = schema()
    return pa.table([pa.array(columns[field.name], field.type) for field in made], schema=made)


def _with_finals(folder: RunFolder) -> Log:
    """The log and behind it the summary's values, which replace what the log says of them at the same step.

    They take a row of their own, or the last row's end where that is the same.
    """
    import numpy as np

    none = np.empty(0, np.int64)
    log, summary = folder.log or Log((), none, none, np.empty((0, 0))), folder.summary
    if not summary:
        return log
    finals = {name: rounded(float(value)) for name, value in summary["metrics"].items()}
    names = (*log.names, *(name for name in finals if name not in log.names))
    step, epoch = whole(summary["step"]), whole(summary.get("epochs"))
    own = len(names) - len(finals)
    if names == log.names and names[own:] == tuple(finals) and _ends_with(log, step, epoch):
        log.values[-1, own:] = list(finals.values())
        return log
    values = np.full((len(log.steps) + 1, len(names)), np.nan)
    values[:-1, : len(log.names)] = log.values
    replaced = np.array([name in finals for name in names], dtype=bool)
    values[np.ix_(np.append(log.steps == step, False), replaced)] = np.nan
    values[-1] = [finals.get(name, np.nan) for name in names]
    steps = np.append(log.steps, np.int64(step or 0))
    epochs = np.append(log.epochs, np.int64(MISSING if epoch is None else epoch))
    return Log(names, steps, epochs, values, log.last_line)


def _ends_with(log: Log, step: int | None, epoch: int | None) -> bool:
    """Whether the last row, and no other, is of this step."""
    at = log.steps == step
    return bool(len(at)) and bool(at[-1]) and at.sum() == 1 and log.epochs[-1] == (MISSING if epoch is None else epoch)


def _lists(logs: list[Log]) -> dict[str, Any]:
    """The logs as list columns, which share one array each."""
    import numpy as np
    import pyarrow as pa

    def column(parts: list[np.ndarray]) -> pa.Array:
        offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
        return pa.LargeListArray.from_arrays(offsets, np.concatenate([part.ravel() for part in parts]))

    counts = [int(log.values.size - np.count_nonzero(np.isnan(log.values))) for log in logs]
    return {
        "count": counts,
        "steps": column([log.steps for log in logs]),
        "epochs": column([log.epochs for log in logs]),
        "values": column([log.values for log in logs]),
    }


def _facts(folder: RunFolder) -> dict[str, Any]:
    """What is said of a run, whatever arm it is planned for, in types that JSON has."""
    summary, provenance, status = folder.summary, folder.provenance, folder.status
    packages = provenance.get("packages")
    described = {key: _number(summary.get(key)) for key in ("params_m", "flops_g", "wall_s", "images_per_s")}
    notes = summary.get("notes")
    row = {
        "state": folder.state, "cause": folder.cause, "progress": rounded(folder.progress),
        "task": _one_line(summary.get("task")), "model": _model(summary.get("model")), **described,
        "epochs": whole(summary.get("epochs", status.get("epoch"))),
        "step": whole(summary.get("step", status.get("step"))),
        "device": _one_line(summary.get("device")), "finished": _one_line(summary.get("finished")),
        "commit": _one_line(provenance.get("commit")), "dirty": _flag(provenance.get("dirty")),
        "code_fingerprint": _one_line(provenance.get("code_fingerprint")),
        "data_fingerprint": _one_line(provenance.get("data_fingerprint")),
        "python": _one_line(provenance.get("python")),
        "torch": _one_line(packages.get("torch")) if isinstance(packages, Mapping) else "",
        "notes": "; ".join(map(_one_line, notes)) if isinstance(notes, list) else _one_line(notes),
        "log_line": folder.log.last_line if folder.log else None,
    }  # fmt: skip
    curves = _curves(folder)  # may warn
    return {"row": row, "curves": curves, "warnings": folder.warnings, "examples": folder.examples}


def _curves(folder: RunFolder) -> list[dict[str, Any]]:
    curves = folder.summary.get("curves") or {} if folder.state == DONE else {}
    try:
        return [
            {"curve": name, **{key: rounded(value) for key, value in point.items() if key != "curve"}}
            for name, points in curves.items()
            for point in points
        ]
    except (AttributeError, TypeError):
        folder.warnings.append(f"{folder.run}: its curves are not lists of points; left out")
        return []


def _number(value: Any) -> float | None:
    return rounded(float(value)) if is_number(value) else None


def _model(model: Any) -> str:
    return _one_line((model.get("name") if isinstance(model, Mapping) else model) or "")


def _one_line(text: Any) -> str:
    return " ".join(str(text if text is not None else "").split())


def _flag(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else ""
