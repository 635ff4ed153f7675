"""Differences over seeds and images, from the per-image records of runs, and the spread of runs measured again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from results.collect import Collected
from results.records import ImageRecord, read_records
from results.statistics.estimates import Spread, pooled
from results.statistics.images import NewImages, mcnemar, new_images
from run_format import DONE


@dataclass(frozen=True)
class ImageComparisons:
    """Compares arms of one task image by image; ``collected`` are the results of that task alone."""

    collected: Collected
    metric: str

    def interval(self, arm: str, against: str) -> NewImages | None:
        """Of ``arm`` minus ``against`` over new seeds and images; None where fewer than two pairs recorded images."""
        import numpy as np

        pairs = self._pairs(arm, against)
        rows = [ours.contributions() - theirs.contributions() for ours, theirs in pairs]
        return new_images(np.stack(rows)) if len(rows) > 1 else None

    def mcnemar(self, arm: str, against: str) -> float | None:
        """p of McNemar's test for a single pair of runs that were right or wrong image by image, else None."""
        pairs = self._pairs(arm, against)
        if len(pairs) != 1 or any(record.count.shape[1] != 1 or (record.count != 1).any() for record in pairs[0]):
            return None
        first, second = (record.correct[:, 0] > 0 for record in pairs[0])
        return mcnemar(first, second)

    def _pairs(self, arm: str, against: str) -> list[tuple[ImageRecord, ImageRecord]]:
        """By seed; none unless all finished pairs recorded the same images in the same order."""
        if arm == against:
            return []
        ours, theirs = self._runs.get(arm, {}), self._runs.get(against, {})
        seeds = sorted(ours.keys() & theirs.keys())
        records = [(self._records.get(ours[seed]), self._records.get(theirs[seed])) for seed in seeds]
        known = [(a, b) for a, b in records if a is not None and b is not None]
        images = {(len(record.count), record.order) for pair in known for record in pair}
        return known if len(known) == len(records) and len(images) == 1 else []

    @cached_property
    def _runs(self) -> dict[str, dict[int, str]]:
        """arm → seed → run, of finished runs."""
        runs: dict[str, dict[int, str]] = {}
        done = self.collected.runs[self.collected.runs["state"] == DONE]
        for arm, seed, run in done[["arm", "seed", "run"]].itertuples(index=False):
            runs.setdefault(arm, {})[int(seed)] = run
        return runs

    @cached_property
    def _records(self) -> dict[str, ImageRecord]:
        """Run → its record of the metric, of those that have one."""
        runs = {run for by_seed in self._runs.values() for run in by_seed.values()}
        read = {run: read_records(path) for run, path in self.collected.records.items() if run in runs}
        return {run: records[self.metric] for run, records in read.items() if self.metric in records}


def repeat_spread(collected: Collected, metric: str) -> Spread | None:
    """How much the same run differs when it is measured again, pooled over all that were; None where none was."""
    repeats = collected.repeats[collected.repeats["metric"] == metric]
    finals = collected.finals(metric)
    counted = dict(zip(finals["run"], finals["value"]))
    samples = [
        [counted[run], *group["value"]] for run, group in repeats.groupby("run", observed=True) if run in counted
    ]
    return pooled(samples)
