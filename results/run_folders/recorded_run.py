"""Reads one run folder: which state the run is in, and its numbers only if it finished.

Nothing here writes. A file that is torn, half-written or of another run is named and never counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run_format
from errors import UnreadableError
from results.run_folders import interventions
from results.run_folders.metrics_log import LoggedMetrics, read_logs
from results.run_folders.numbers import DIGITS, rounded, whole
from results.run_folders.summary_file import broken, other_config, problem
from run_format import DONE, FAILED, NOT_RUN, RUNNING, UNREADABLE
from untrusted_files import content, exists, is_number, keys_and_values

STARTED = (run_format.STATE, run_format.SUMMARY, run_format.METRICS)  # a run that started has at least one of these
OPTIONAL = (run_format.EXAMPLES, run_format.RECORDS, run_format.EXCLUSION)
# the weights tell whether interventions are of this training
INTERVENTIONS = (f"{interventions.FOLDER}/{interventions.FILE}", run_format.WEIGHTS)
FILES = (*STARTED, run_format.PROVENANCE, run_format.CONFIG, *OPTIONAL, *INTERVENTIONS)  # all that is read of a run
EXPECTED = (DONE, RUNNING, UNREADABLE)  # beside a summary, which is written a moment before the state turns to done


@dataclass
class RecordedRun:
    """What a folder records of one run. ``summary`` is empty unless ``state`` is ``done``."""

    run: str
    state: str = NOT_RUN
    cause: str = ""
    progress: float | None = None
    status: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    log: LoggedMetrics | None = None
    examples: bool = False
    records: bool = False
    interventions: bool = False
    warnings: list[str] = field(default_factory=list)
    exclusion: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the tables say of the run, whichever arm it is planned for, in types that JSON has."""
        summary, provenance = self.summary, self.provenance
        packages, notes = provenance.get("packages"), summary.get("notes")
        row = {
            "state": self.state,
            "cause": self.cause,
            "progress": rounded(self.progress),
            "task": _one_line(summary.get("task")),
            "model": _model(summary.get("model")),
            **{key: _number(summary.get(key)) for key in ("params_m", "flops_g", "wall_s", "images_per_s")},
            "epochs": whole(summary.get("epochs")),
            "step": whole(summary.get("step", self.status.get("step"))),
            **{key: _one_line(summary.get(key)) for key in ("device", "finished")},
            **{key: _one_line(provenance.get(key)) for key in ("commit", "code_fingerprint", "data_fingerprint")},
            "dirty": _flag(provenance.get("dirty")),
            "python": _one_line(provenance.get("python")),
            "torch": _one_line(packages.get("torch")) if isinstance(packages, Mapping) else "",
            "notes": "; ".join(map(_one_line, notes)) if isinstance(notes, list) else _one_line(notes),
            "log_line": self.log.last_line if self.log else None,
        }
        curves = self._curves()  # may add a warning
        files = {"examples": self.examples, "records": self.records, "interventions": self.interventions}
        return {"row": row, "curves": curves, "warnings": self.warnings, **files, **self._exclusion()}

    def _exclusion(self) -> dict[str, Any]:
        """``because``: why the run is left out, empty if it is not; ``earlier``: its earlier measurements that are."""
        earlier = self.exclusion.get("earlier")
        return {
            "because": _one_line(self.exclusion.get("because")),
            "earlier": [
                {
                    **{key: _one_line(each.get(key)) for key in ("because", "finished", "device")},
                    "values": {name: _number(value) for name, value in values.items() if is_number(value)},
                }
                for each in (earlier if isinstance(earlier, list) else [])
                if isinstance(each, dict) and isinstance(values := each.get("values"), dict)
            ],
        }

    def _curves(self) -> list[dict[str, Any]]:
        try:
            return [
                {"curve": name, **{key: rounded(value) for key, value in point.items() if key != "curve"}}
                for name, points in (self.summary.get("curves") or {}).items()
                for point in points
            ]
        except (AttributeError, TypeError):
            self.warnings.append(f"{self.run}: its curves are not lists of points; left out")
            return []


@dataclass(frozen=True)
class OneRun:
    """A run looked at by itself. provenance: also of a run that has not finished."""

    folder: Path
    seed: int
    recorded: RecordedRun
    provenance: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """Dotted key → value of its frozen config."""
        from yaml_files import dotted, load

        return dotted(load(self.recorded.config or "{}", f"{self.recorded.run}/{run_format.CONFIG}"))


def read_one(folder: Path) -> OneRun:
    """The run of a folder, by its own word on its seed and protocol."""
    from yaml_files import load  # needs PyYAML, which collecting many runs does without

    logs = read_logs({folder.name: _metrics(folder)})
    frozen = load(_config(str(folder)) or "{}", f"{folder.name}/{run_format.CONFIG}")
    frozen = frozen if isinstance(frozen, dict) else {}
    seed = whole(frozen.get("seed")) or 0
    recorded = read_run(str(folder), seed, str(frozen.get("protocol")), logs)
    provenance = recorded.provenance or _read_json(str(folder), run_format.PROVENANCE, recorded.warnings) or {}
    return OneRun(folder, seed, recorded, provenance)


def _metrics(folder: Path) -> bytes:
    try:
        return content(folder / run_format.METRICS)
    except FileNotFoundError:
        return b""


def read_run(folder: str, seed: int, protocol: str, logs: Mapping[str, tuple[LoggedMetrics, list[str]]]) -> RecordedRun:
    """The run in ``folder``, which is named by the run's id and planned with this seed and protocol.

    ``logs`` holds its log, if there is any.
    """
    recorded = RecordedRun(os.path.basename(folder))
    try:
        if not any(exists(f"{folder}/{name}") for name in STARTED):
            recorded.config = _config(folder)
            return recorded  # there is no folder, or a launcher made it and nothing has started
        recorded.config = _config(folder)
    except UnreadableError as error:
        _refuse(recorded, _within(folder, error))
        return recorded
    recorded.exclusion = _read_json(folder, run_format.EXCLUSION, recorded.warnings) or {}
    recorded.status = _read_json(folder, run_format.STATE, recorded.warnings) or {}
    recorded.state = str(recorded.status.get("state") or UNREADABLE)
    recorded.cause = " ".join(str(recorded.status.get("cause") or "").split())
    recorded.progress = _progress(recorded.status)
    recorded.log, bad_lines = logs.get(recorded.run, (None, []))
    recorded.warnings += bad_lines
    if os.path.exists(f"{folder}/{run_format.SUMMARY}"):
        _finish(recorded, folder, seed, protocol)
    elif recorded.state == DONE:
        _refuse(recorded, f"its state is done, but there is no {run_format.SUMMARY}")
    elif recorded.state == UNREADABLE:
        _refuse(recorded, f"no readable {run_format.STATE}")
    return recorded


def _config(folder: str) -> str:
    try:
        return content(f"{folder}/{run_format.CONFIG}").decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _within(folder: str, error: UnreadableError) -> str:
    """The message with the path from within the folder."""
    return str(error).replace(f"{folder}/", "", 1)


def _finish(recorded: RecordedRun, folder: str, seed: int, protocol: str) -> None:
    """Takes over the summary, or refuses the run with the reason why the summary is no result."""
    summary = _read_json(folder, run_format.SUMMARY, recorded.warnings)
    why = (
        _problem(summary, recorded.run, seed, protocol)
        or _untraceable(recorded, folder)
        or other_config(summary or {}, recorded.config.encode("utf-8", errors="replace"))
    )
    if not why and summary is not None and (contradiction := _contradiction(summary, recorded.log)):
        if summary.get("images_per_s") == 0:
            recorded.warnings.append(
                f"{recorded.run}: {contradiction}; it was judged again after it was interrupted, and counts"
            )
        else:
            why = contradiction
    if why or summary is None:
        _refuse(recorded, why)
        if summary is not None and broken(summary):
            recorded.state = FAILED
        return
    if recorded.state not in EXPECTED:
        recorded.warnings.append(
            f"{recorded.run}: {run_format.STATE} says {recorded.state}, but {run_format.SUMMARY} is whole; counted"
        )
    recorded.state, recorded.cause, recorded.progress, recorded.summary = DONE, "", 1.0, summary
    recorded.examples = os.path.isfile(f"{folder}/{run_format.EXAMPLES}")
    recorded.records = os.path.isfile(f"{folder}/{run_format.RECORDS}")
    if os.path.isfile(f"{folder}/{INTERVENTIONS[0]}"):
        of_other = interventions.problem_of_folder(Path(folder), recorded.provenance)
        recorded.interventions = not of_other
        recorded.warnings += [interventions.warning(recorded.run, of_other)] if of_other else []
    if recorded.log is None or not len(recorded.log.steps):
        recorded.warnings.append(f"{recorded.run}: no rows in {run_format.METRICS}; its learning curve is missing")


def _refuse(recorded: RecordedRun, why: str) -> None:
    recorded.state, recorded.cause, recorded.progress = UNREADABLE, why, None
    recorded.warnings.append(f"{recorded.run}: {why}; not counted")


def _problem(summary: dict[str, Any] | None, run: str, seed: int, protocol: str) -> str:
    """Why a summary is no result of the planned run; empty where it is a result."""
    if summary is None:
        return f"{run_format.SUMMARY} cannot be read"
    return problem(summary, {"run": run, "seed": seed, "protocol": protocol}) or broken(summary)


def _untraceable(recorded: RecordedRun, folder: str) -> str:
    """Reads the provenance; says what a folder with a good summary lacks for its numbers to be followed back."""
    recorded.provenance = _read_json(folder, run_format.PROVENANCE, recorded.warnings) or {}
    if not recorded.provenance:
        return f"{run_format.PROVENANCE} is missing or cannot be read, so its code and data are unknown"
    return "" if recorded.config else f"{run_format.CONFIG} is missing"


def _contradiction(summary: Mapping[str, Any], log: LoggedMetrics | None) -> str:
    """Where the log has another value than the summary; the engine writes both from one evaluation.

    Only a run that was interrupted between the two is judged again, perhaps on another device, where sums are rounded
    otherwise; no step was trained then, so its summary has no images per second.
    """
    step = whole(summary["step"])
    rows = [] if log is None else (log.steps == step).nonzero()[0]
    if log is None or not len(rows):
        return ""
    for position, name in enumerate(log.names):
        if name in summary["metrics"]:
            value = summary["metrics"][name]
            for logged in log.values[rows, position].tolist():
                if is_number(logged) and rounded(logged) != rounded(float(value)):
                    logged_text = f"{run_format.METRICS} says {logged:.{DIGITS}g} at step {step}"
                    return f"{run_format.SUMMARY}: {name} is {value}, but {logged_text}"
    return ""


def _progress(status: dict[str, Any]) -> float | None:
    step, steps = status.get("step"), status.get("steps")
    if is_number(step) and is_number(steps) and steps > 0:  # type: ignore[operator]
        return min(1.0, max(0.0, float(step / steps)))  # type: ignore[operator]
    return None


def _read_json(folder: str, name: str, warnings: list[str]) -> dict[str, Any] | None:
    try:
        return keys_and_values(f"{folder}/{name}")
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        warnings.append(f"{os.path.basename(folder)}/{_within(folder, error)}")
        return None


def _number(value: Any) -> float | None:
    return rounded(float(value)) if is_number(value) else None


def _model(model: Any) -> str:
    return _one_line((model.get("name") if isinstance(model, Mapping) else model) or "")


def _one_line(text: Any) -> str:
    return " ".join(str(text if text is not None else "").split())


def _flag(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else ""
