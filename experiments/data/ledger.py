"""The list of images of a run that could not be read."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from errors import DataError, RunFailed
from experiments.data.images import READABLE, Images

log = logging.getLogger("experiments")


class Ledger:
    """Names unreadable training images as they are met, and fails the run when they are too many."""

    def __init__(self, dataset: Any, tolerance: float):
        self.dataset, self.tolerance = dataset, tolerance
        self.bad: dict[int, str] = {}

    def note(self, batch: tuple[Tensor, ...]) -> int:
        """Takes a training batch's unreadable indices into the ledger; how many are new."""
        new = [index for index in _unreadable(self.dataset, batch) if index not in self.bad]
        for index in new:
            self.bad[index] = _why(self.dataset, index)
            log.warning("%s: replaced by the next readable image", self.bad[index])
        return len(new)

    def merge(self, ledgers: list[dict[int, str]]) -> None:
        """Makes one ledger of those of all devices. Raises RunFailed past the tolerance."""
        for ledger in ledgers:
            self.bad.update(ledger)
        if len(self.bad) > self.tolerance * len(self.dataset):
            raise RunFailed(
                f"{len(self.bad)} of {len(self.dataset)} training images are unreadable, more than "
                f"data.bad_image_tolerance={self.tolerance:g} allows; the first: {next(iter(self.bad.values()))}"
            )

    def refuse(self, dataset: Any, batch: tuple[Tensor, ...]) -> None:
        """Raises RunFailed where an evaluation batch holds an image that could not be read."""
        for index in _unreadable(dataset, batch):
            raise RunFailed(f"evaluation needs every image: {_why(dataset, index)}")

    def state(self) -> dict[int, str]:
        return dict(self.bad)

    def restore(self, state: dict[int, str]) -> None:
        self.bad = dict(state)


def _unreadable(dataset: Any, batch: tuple[Tensor, ...]) -> list[int]:
    if not isinstance(dataset, Images):  # only decoding can fail
        return []
    indices = batch[-1]
    return [] if bool((indices == READABLE).all()) else indices[indices != READABLE].tolist()


def _why(dataset: Images, index: int) -> str:
    try:
        dataset.read(index)
    except DataError as error:
        return str(error)
    return f"{dataset.name(index)}: unreadable once, readable now"
