"""The file of a run's offset interventions: what it holds, and whether it is of that training of the run.

``measurements.offsets.effects`` fills it, ``reports.offsets.interventions`` shows it, measured results keep it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from errors import UnreadableError
from results.file_hash import sha256
from results.run_folders.measurement_file import OF_TRAINED, MeasuredError, need, of_another
from run_format import WEIGHTS
from untrusted_files import keys_and_values

UNREADABLE = (OSError, ValueError, RecursionError, UnreadableError)
VERSION = 1  # of the definitions; raised with every change of one
FOLDER, FILE = "offsets", "interventions.json"  # of all layers together
NEEDED: Mapping[str, type] = {
    **dict.fromkeys(("name", "dataset", "experiment", "weights_sha256"), str),
    **dict.fromkeys(("key", "metric", "undisturbed", "otherwise", "interventions", "impossible", "trained"), dict),
    **{"images": int, "layers": list},
}
METRIC: Mapping[str, type] = {"name": str, "label": str, "unit": str, "decimals": int}
EFFECT: Mapping[str, type] = {"title": str, "metrics": dict, "differences": dict, "intervals": dict}
PARTS = ("metrics", "differences")
KEPT = ("version", "weights_sha256", "images", "layer", "precision")  # of the key; the rest is in the run's config
LEFT_OUT = ": its interventions are left out: "


def read(file: Path) -> dict[str, Any]:
    """Raises MeasuredError, which names the file."""
    try:
        return _parsed(file)
    except UNREADABLE as error:
        raise MeasuredError(f"{file} cannot be read ({_cause(file, error)}); --fresh measures again") from None


def _cause(file: Path, error: Exception) -> str:
    """Why the file cannot be read, in one line and without its path."""
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(cause.replace(f"{file}", "", 1).lstrip(": ").split())


def text(about: Mapping[str, Any]) -> str:
    """The content of the file, a number per line, so that a change of one is a change of its line."""
    return json.dumps(about, indent=1) + "\n"


def committed(about: Mapping[str, Any]) -> str:
    """The content that is kept in measured results: without the settings of the run and the place of its data."""
    return text({**about, "key": {name: value for name, value in about["key"].items() if name in KEPT}})


def problem(file: Path, shown: str, run: str, trained: Mapping[str, Any], weights: Path | None = None) -> str:
    """Why a file is not the interventions of this training of a run; empty where it is.

    shown: the name of the file in a message. trained: fingerprints of code and data of the run. weights: its final
    ones, which are not compared where there are none.
    """
    try:
        about = _parsed(file)
        shown = WEIGHTS
        of_weights = sha256(weights) if weights is not None and weights.is_file() else ""
    except UNREADABLE as error:
        return f"{shown} cannot be read ({_cause(file, error)})"
    return of_another(about, run, trained, of_weights)


def problem_of_folder(run: Path, trained: Mapping[str, Any]) -> str:
    """The same of the file in the folder of a finished run."""
    return problem(run / FOLDER / FILE, f"{FOLDER}/{FILE}", run.name, trained, run / WEIGHTS)


def warning(run: str, why: str) -> str:
    """The sentence about a file that is left out."""
    return f"{run}{LEFT_OUT}{why}"


def reasons(warnings: Iterable[str]) -> dict[str, str]:
    """Run → why its file is left out, of the sentences among ``warnings`` that say so."""
    parts = [each.partition(LEFT_OUT) for each in warnings]
    return {run: why for run, separator, why in parts if separator}


def preferred(first: Path, second: Path) -> Path:
    """Which of two files of one training counts, whichever comes first: that of later definitions, then of more images,
    then of more interventions, then the newer one. Raises MeasuredError."""
    return max((first, second), key=lambda file: _rank(read(file)))


def _rank(about: Mapping[str, Any]) -> tuple[Any, ...]:
    version = about["key"].get("version")
    number = version if isinstance(version, int) else 0
    return number, about["images"], len(about["interventions"]), str(about.get("created")), committed(about)


def _parsed(file: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, UnreadableError, or ValueError where a page would miss something."""
    about = keys_and_values(file)
    need("it", about, NEEDED)
    need("trained", about["trained"], OF_TRAINED)
    need("metric", about["metric"], METRIC)
    _need_numbers("undisturbed", about["undisturbed"])
    for name, effect in about["interventions"].items():
        need(name, effect, EFFECT)
        for part in PARTS:
            _need_numbers(f"{name}: {part}", effect[part])
        for metric, interval in effect["intervals"].items():
            if not isinstance(interval, list) or len(interval) != 2 or not all(map(_is_number, interval)):
                raise ValueError(f"{name}: the interval of {metric} is not two numbers")
    shown = [about["undisturbed"], *(e[part] for e in about["interventions"].values() for part in PARTS)]
    if any(not isinstance(values.get(about["metric"]["name"]), float) for values in shown):
        raise ValueError(f"it does not have {about['metric']['name']} throughout")
    for name, effect in about["interventions"].items():
        if not effect["differences"].keys() <= effect["metrics"].keys() & about["undisturbed"].keys():
            raise ValueError(f"{name} has differences of metrics that it does not have")
    return about  # type: ignore[no-any-return]


def _need_numbers(name: str, values: Mapping[str, Any]) -> None:
    for metric, value in values.items():
        if not _is_number(value):
            raise ValueError(f"{name}: {metric} is {value!r}, not a number")


def _is_number(value: object) -> bool:
    """A loss under offsets that no network was trained with may be infinite or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool)
