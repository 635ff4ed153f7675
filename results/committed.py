"""Reads the files of committed results, which anybody may have edited: what is wrong is named with file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from results.collect import NUMBERS, CollectError

if TYPE_CHECKING:
    import pandas as pd

RUNS = ("arm", "seed", "run", "state", "task")
METRICS = ("run", "step", "epoch", "metric", "value", "final")
CURVES = ("run", "curve")
PLAN = {"sweep": str, "protocol": str, "baseline": str, "arms": list}
ARM = {"name": str, "label": str}


def about(path: Path) -> dict[str, Any]:
    """``about.yaml``, with the plan that was answered and the warnings."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _refused(path, _one_line(error)) from None
    _need(path, "it", found, {"plan": dict})
    plan = found["plan"]
    _need(path, "its plan", plan, PLAN)
    for number, arm in enumerate(plan["arms"], 1):
        _need(path, f"arm {number} of its plan", arm, ARM)
        if not isinstance(arm.get("config") or {}, dict):
            raise _refused(path, f"the config of arm {arm['name']} is no mapping")
    if not isinstance(found.setdefault("warnings", []), list):
        raise _refused(path, "its warnings are no list")
    return {**found, "warnings": [str(warning) for warning in found["warnings"]]}


def runs(path: Path) -> pd.DataFrame:
    """``runs.csv`` as texts, which are whole numbers and numbers where they have to be."""
    frame = _table(path, RUNS, dtype=str, keep_default_na=False)
    for column in NUMBERS:
        if column in frame:
            _numbers(path, frame, column, whole=NUMBERS[column] == "Int64", empty=column != "seed")
    for column in ("arm", "run"):
        _refuse_rows(path, frame, frame[column] == "", f"its {column} is empty")
    return frame


def metrics(path: Path) -> pd.DataFrame:
    """``metrics.csv``; of a run and metric there is one final value at most."""
    frame = _table(path, METRICS)
    for column, whole, empty in (("step", True, False), ("epoch", True, True), ("value", False, False)):
        _numbers(path, frame, column, whole=whole, empty=empty)
    for column in ("run", "metric"):
        _refuse_rows(path, frame, frame[column].isna(), f"its {column} is empty")
    _refuse_rows(
        path, frame, ~frame["final"].astype(str).isin(["True", "False"]), "its final is neither True nor False"
    )
    finals = frame[frame["final"].astype(bool)]
    twice = finals.duplicated(["run", "metric"]).reindex(frame.index, fill_value=False)
    _refuse_rows(path, frame, twice, "a final value of this run and metric stands above already")
    return frame


def curves(path: Path) -> pd.DataFrame:
    """``curves.csv``, with whatever columns its curves have."""
    return _table(path, CURVES)


def _table(path: Path, needed: Iterable[str], **how: Any) -> pd.DataFrame:
    """Rows in the order of the file, so that row n is on line n + 2."""
    import pandas as pd

    try:
        frame: pd.DataFrame = pd.read_csv(path, skip_blank_lines=False, **how)
    except (OSError, ValueError) as error:
        raise _refused(path, _one_line(error)) from None
    missing = [column for column in needed if column not in frame]
    if missing:
        raise _refused(f"{path}:1", f"it has no column {', '.join(missing)}")
    if not isinstance(frame.index, pd.RangeIndex):
        raise _refused(f"{path}:2", "it has more fields than the header")
    return frame


def _numbers(path: Path, frame: pd.DataFrame, column: str, *, whole: bool, empty: bool) -> None:
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    bad = ~np.isfinite(numbers)
    if whole:
        bad |= (numbers % 1 != 0) | (numbers.abs() >= 2**63)
    if empty:
        bad &= ~(frame[column].isna() | (frame[column] == ""))
    kind = "a whole number" if whole else "a finite number"
    for place in frame.index[bad][:1]:
        given = "" if frame[column].isna()[place] else str(frame[column][place])
        said = repr(given) if given else "empty"
        raise _refused(f"{path}:{place + 2}", f"its {column} is {said}, not {kind}")


def _refuse_rows(path: Path, frame: pd.DataFrame, bad: pd.Series, why: str) -> None:
    for place in frame.index[bad.astype(bool)][:1]:
        raise _refused(f"{path}:{place + 2}", why)


def _need(path: Path, what: str, found: Any, keys: Mapping[str, type]) -> None:
    if not isinstance(found, dict):
        raise _refused(path, f"{what} is no mapping")
    for key, kind in keys.items():
        if not isinstance(found.get(key), kind):
            raise _refused(path, f"{what} has no {key}" if key not in found else f"{what} has a wrong {key}")


def _refused(where: Path | str, why: str) -> CollectError:
    path = Path(where)
    return CollectError(f"measured results {path.parent.name}: {path.name}: {why}")


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())
