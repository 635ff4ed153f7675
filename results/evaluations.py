"""What ``evaluate=`` kept beside the run folders: weights that were judged without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UnreadableError
from run_format import EVALUATIONS, SUMMARY
from untrusted_files import MAPPING, NUMBER, TEXT, is_number, keys_and_values, listed

KINDS = {"of": TEXT, "protocol": TEXT, "task": TEXT, "model": TEXT, "images": NUMBER, "finished": TEXT} | dict.fromkeys(
    ("metrics", "intervals", "key", "weights"), MAPPING
)


@dataclass(frozen=True)
class JudgedFile:
    """An evaluation of weights of a file or of a run.

    of: the run, or the name of the file; released: whether the authors' names of weights are in the file; size: height
    and width of the images; images: how many were judged; metrics: without the kind of weights, ``top1``; halves: of
    their 95 % intervals over images, where there are some; changed: settings that are not those of the run.
    """

    folder: Path
    of: str
    released: bool
    model: str
    dataset: str
    split: str
    protocol: str
    size: tuple[int, int]
    images: int
    metrics: Mapping[str, float]
    halves: Mapping[str, float]
    changed: tuple[str, ...] = ()


def read_evaluations(runs_dir: Path) -> tuple[list[JudgedFile], list[str]]:
    """Every complete evaluation, the latest last, and a line about each that cannot be read."""
    found, unreadable = [], []
    for folder in listed(runs_dir / EVALUATIONS):
        try:
            summary = keys_and_values(folder / SUMMARY, KINDS)
            found.append((str(summary.get("finished")), _judged(folder, summary)))
        except (FileNotFoundError, NotADirectoryError):  # not complete, or no folder
            continue
        except UnreadableError as error:
            unreadable.append(f"an evaluation is left out: {error}")
        except (KeyError, TypeError, ValueError) as error:
            unreadable.append(f"an evaluation is left out: {folder / SUMMARY} is not as it was written ({error!r})")
    return [judged for _, judged in sorted(found, key=lambda each: each[0])], unreadable


def _judged(folder: Path, summary: Mapping[str, Any]) -> JudgedFile:
    key, weights = summary["key"], summary["weights"]
    height, width = key["data.image_size"]
    metrics = {name: value for name, value in summary["metrics"].items() if is_number(value)}
    intervals = summary["intervals"]
    return JudgedFile(
        folder,
        summary["of"],
        weights.get("released") is True,
        summary["model"],
        key["data.dataset"],
        key["data.eval_split"],
        summary["protocol"],
        (int(height), int(width)),
        int(summary["images"]),
        {_bare(name): value for name, value in metrics.items()},
        {_bare(name): (high - low) / 2 for name, (low, high) in intervals.items()},
        tuple(map(str, summary.get("changed") or ())),
    )


def _bare(name: str) -> str:
    return name.rpartition("/")[2]
