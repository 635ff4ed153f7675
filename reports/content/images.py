"""Differences over seeds and images, from the per-image records of runs, and the spread of runs measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from results.collect import Collected
from results.records import ImageRecord, Record, check_value, read_records
from results.statistics.estimates import Spread, pooled
from results.statistics.images import NewImages, mcnemar, new_images
from run_format import DONE

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ImageComparisons:
    """Compares arms of one task image by image; ``collected`` are the results of that task alone."""

    collected: Collected
    metric: str

    def interval(self, arm: str, against: str) -> NewImages | None:
        """Of ``arm`` minus ``against`` over new seeds and images; None where fewer than two pairs recorded images."""
        return self.contrast([arm], [against])

    def contrast(self, plus: Sequence[str], minus: Sequence[str]) -> NewImages | None:
        """The same of the arms of ``plus`` minus those of ``minus``."""
        differences = self.differences(plus, minus)
        return None if differences is None else new_images(differences)

    def differences(self, plus: Sequence[str], minus: Sequence[str]) -> np.ndarray | None:
        """The arms of ``plus`` minus those of ``minus``, float64 [seeds, images] in points; None for fewer than two
        seeds."""
        import numpy as np

        rows = [
            sum(records[arm].contributions() for arm in plus) - sum(records[arm].contributions() for arm in minus)
            for records in self._of_seeds([*plus, *minus])
        ]
        return np.stack(rows) if len(rows) > 1 else None

    def mcnemar(self, arm: str, against: str) -> float | None:
        """p of McNemar's test for a single pair of runs that were right or wrong image by image, else None."""
        pairs = self._of_seeds([arm, against])
        if len(pairs) != 1:
            return None
        first, second = (_right_or_wrong(pairs[0][name]) for name in (arm, against))
        return None if first is None or second is None else mcnemar(first, second)

    def _of_seeds(self, arms: Sequence[str]) -> list[dict[str, Record]]:
        """The records of several arms, for each seed that all have finished.

        None unless all of these runs recorded the same images in the same order.
        """
        if len(set(arms)) < len(arms):
            return []
        seeds = sorted(set.intersection(*(set(self._runs.get(arm, {})) for arm in arms)))
        found = [{arm: self._records.get(self._runs[arm][seed]) for arm in arms} for seed in seeds]
        known = [{arm: r for arm, r in of_seed.items() if r is not None} for of_seed in found]
        images = {(record.images, record.order) for of_seed in known for record in of_seed.values()}
        return known if all(len(of_seed) == len(arms) for of_seed in known) and len(images) == 1 else []

    @cached_property
    def _runs(self) -> dict[str, dict[int, str]]:
        """arm → seed → run, of finished runs."""
        runs: dict[str, dict[int, str]] = {}
        done = self.collected.runs[self.collected.runs["state"] == DONE]
        for arm, seed, run in done[["arm", "seed", "run"]].itertuples(index=False):
            runs.setdefault(arm, {})[int(seed)] = run
        return runs

    @cached_property
    def _records(self) -> dict[str, Record]:
        """Run → its record of the metric, of those that have one. Raises CollectError for one of another result."""
        runs = {run for by_seed in self._runs.values() for run in by_seed.values()}
        finals = self.collected.finals(self.metric)
        reported = dict(zip(finals["run"], finals["value"]))
        found = {}
        for run, path in self.collected.records.items():
            if run in runs and (record := read_records(path).get(self.metric)):
                check_value(path, self.metric, record, reported.get(run))  # or it is of another run
                found[run] = record
        return found


def _right_or_wrong(record: Record) -> np.ndarray | None:
    """bool [N], which images are right; None where an image can be anything else than right or wrong."""
    if not isinstance(record, ImageRecord) or record.count.shape[1] != 1 or (record.count != 1).any():
        return None
    right: np.ndarray = record.correct[:, 0] > 0
    return right


def repeat_spread(collected: Collected, metric: str) -> Spread | None:
    """How much the same run differs when it is measured again, pooled over all that were; None where none was."""
    repeats = collected.repeats[collected.repeats["metric"] == metric]
    finals = collected.finals(metric)
    counted = dict(zip(finals["run"], finals["value"]))
    samples = [
        [counted[run], *group["value"]] for run, group in repeats.groupby("run", observed=True) if run in counted
    ]
    return pooled(samples)
