"""The list of samples of a run that could not be read, whatever its data set."""

from __future__ import annotations

import logging

from errors import RunFailed
from experiments.data.batch import Batch, Samples

log = logging.getLogger("experiments")


class Ledger:
    """Names unreadable training images as they are met, and fails the run when they are too many."""

    def __init__(self, dataset: Samples, tolerance: float):
        self.dataset, self.tolerance = dataset, tolerance
        self.bad: dict[int, str] = {}

    def note(self, batch: Batch) -> int:
        """Enters the unreadable samples of a training batch. Returns how many are new."""
        new = [index for index in batch.bad.tolist() if index not in self.bad]
        for index in new:
            self.bad[index] = self.dataset.problem(index)
            log.warning("%s: replaced by the next readable image", self.bad[index])
        return len(new)

    def merge(self, ledgers: list[dict[int, str]]) -> None:
        """Adds the ledgers of all devices. Raises RunFailed past the tolerance."""
        for ledger in ledgers:
            self.bad.update(ledger)
        if len(self.bad) > self.tolerance * len(self.dataset):
            raise RunFailed(
                f"{len(self.bad)} of {len(self.dataset)} training images are unreadable, more than "
                f"data.bad_image_tolerance={self.tolerance:g} allows; the first: {next(iter(self.bad.values()))}"
            )

    def refuse(self, dataset: Samples, batch: Batch) -> None:
        """Raises RunFailed where an evaluation batch holds a sample that could not be read."""
        for index in batch.bad.tolist():
            raise RunFailed(f"evaluation needs every image: {dataset.problem(index)}")

    def state(self) -> dict[int, str]:
        return dict(self.bad)

    def restore(self, state: dict[int, str]) -> None:
        self.bad = dict(state)
