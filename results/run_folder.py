"""Reads one run folder as it was left: what state the run is in, and its numbers only if it finished.

Nothing here writes. Whatever is torn, half-written or belongs to another run is named and never counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.reading.digits import rounded
from results.reading.numbers import is_number, whole

if TYPE_CHECKING:
    from results.reading.metrics_log import Log

FILES = ("state.json", "summary.json", "metrics.jsonl", "provenance.json", "config.yaml", "examples.npz")

DONE, NOT_RUN, UNREADABLE, CANCELLED = "done", "not run", "unreadable", "cancelled"
LOST = ("failed", "refused", CANCELLED)  # of a parent: its children cannot be started
EXPECTED = (DONE, "running", UNREADABLE)  # beside a summary, which is written a moment before the state turns to done
REQUIRED = ("run", "seed", "protocol", "step", "metrics")  # of a summary, without which it is no result


@dataclass
class RunFolder:
    """What is known about one run. ``summary`` is there only where ``state`` is ``done``."""

    run: str
    state: str = NOT_RUN
    cause: str = ""
    progress: float | None = None
    status: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    log: Log | None = None
    examples: bool = False
    warnings: list[str] = field(default_factory=list)


def read_run(
    runs_dir: Path, run: str, seed: int, protocol: str, logs: Mapping[str, tuple[Log, list[str]]]
) -> RunFolder:
    """The run ``run`` of ``runs_dir``, which is to be of this seed and protocol. ``logs`` has its log, if any."""
    path, found = f"{runs_dir}/{run}", RunFolder(run)
    with suppress(OSError):
        found.config = content(f"{path}/config.yaml").decode("utf-8", errors="replace")
    if not any(os.path.exists(f"{path}/{name}") for name in FILES[:3]):
        return found  # no folder, or one that a launcher made for later
    found.status = _read_json(path, "state.json", found.warnings) or {}
    found.state = str(found.status.get("state") or UNREADABLE)
    found.cause = " ".join(str(found.status.get("cause") or "").split())
    found.progress = _progress(found.status)
    found.log, bad_lines = logs.get(run, (None, []))
    found.warnings += bad_lines
    if not os.path.exists(f"{path}/summary.json"):
        if found.state == DONE:
            _refuse(found, "it is said to be done, but there is no summary.json")
        elif found.state == UNREADABLE:
            _refuse(found, "no readable state.json")
        return found
    summary = _read_json(path, "summary.json", found.warnings)
    problem = _problem(summary, run, seed, protocol) or _half_written(path, found)
    if not problem and summary is not None and (contradiction := _contradiction(summary, found.log)):
        if summary.get("images_per_s") == 0:
            found.warnings.append(f"{run}: {contradiction}; it was judged again after it was interrupted, and counts")
        else:
            problem = contradiction
    if problem:
        _refuse(found, problem)
        return found
    assert summary is not None
    if found.state not in EXPECTED:
        found.warnings.append(f"{run}: state.json says {found.state}, but summary.json is whole; counted")
    found.state, found.cause, found.progress, found.summary = DONE, "", 1.0, summary
    found.examples = os.path.isfile(f"{path}/examples.npz")
    if found.log is None or not len(found.log.steps):
        found.warnings.append(f"{run}: no rows in metrics.jsonl; its learning curve is missing")
    return found


def _refuse(found: RunFolder, why: str) -> None:
    found.state, found.cause, found.summary, found.progress = UNREADABLE, why, {}, None
    found.warnings.append(f"{found.run}: {why}; not counted")


def _problem(summary: dict[str, Any] | None, run: str, seed: int, protocol: str) -> str:
    """Why a summary is no result of the planned run; empty where it is one."""
    if summary is None:
        return "summary.json cannot be read"
    missing = [key for key in REQUIRED if summary.get(key) is None]
    if missing:
        return f"summary.json lacks {', '.join(missing)}"
    for key, planned in (("run", run), ("seed", seed), ("protocol", protocol)):
        if summary[key] != planned:
            return f"summary.json is of another run: its {key} is {summary[key]!r}, planned was {planned!r}"
    if whole(summary["step"]) is None:
        return f"summary.json: its step is {summary['step']!r}, not a number"
    if not isinstance(summary["metrics"], dict) or not summary["metrics"]:
        return "summary.json holds no metrics"
    broken = [name for name, value in summary["metrics"].items() if not is_number(value)]
    if broken:
        return f"summary.json: {broken[0]} is {summary['metrics'][broken[0]]!r}, not a finite number"
    return ""


def _contradiction(summary: Mapping[str, Any], log: Log | None) -> str:
    """Where the log has another value than the summary; the engine writes both from one evaluation.

    Only a run that was interrupted between the two is judged again, perhaps on another device, where sums are rounded
    otherwise; no step was trained then, so its summary has no images per second.
    """
    at = [] if log is None else (log.steps == whole(summary["step"])).nonzero()[0]
    if log is None or not len(at):
        return ""
    for place, name in enumerate(log.names):
        if name in summary["metrics"]:
            value = summary["metrics"][name]
            for logged in log.values[at, place].tolist():
                if is_number(logged) and logged != rounded(float(value)):
                    step = f"at step {whole(summary['step'])}"
                    return f"summary.json: {name} is {value}, but metrics.jsonl says {logged} {step}"
    return ""


def _half_written(path: str, found: RunFolder) -> str:
    """Fills in the provenance; says what a folder with a good summary lacks to be traceable."""
    found.provenance = _read_json(path, "provenance.json", found.warnings) or {}
    if not found.provenance:
        return "provenance.json is missing or cannot be read, so its code and data are unknown"
    if not found.config:
        return "config.yaml is missing"
    return ""


def _progress(status: dict[str, Any]) -> float | None:
    for done, total in (("step", "steps"), ("epoch", "epochs")):
        if is_number(status.get(done)) and is_number(status.get(total)) and status[total] > 0:
            return min(1.0, max(0.0, float(status[done] / status[total])))
    return None


def _read_json(folder: str, name: str, warnings: list[str]) -> dict[str, Any] | None:
    where = f"{os.path.basename(folder)}/{name}"
    try:
        text = content(f"{folder}/{name}").decode("utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():  # half a surrogate pair is JSON, but no text
            json.dumps(found, ensure_ascii=False).encode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        warnings.append(f"{where}{line}: torn or not JSON")
        return None
    if not isinstance(found, dict):
        warnings.append(f"{where}: expected keys and values")
        return None
    return found


def content(path: str) -> bytes:
    """Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.read()
