"""Images that cannot be read: named with the cause, and replaced in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from errors import DataError
from experiments.data.batch import READABLE
from experiments.data.damage import cause_of
from experiments.data.listing import printable
from experiments.data.order import SampleKey

Read = TypeVar("Read")


class ReplacesUnreadable(Generic[Read]):
    """Of a data set: an image that cannot be read is replaced by the next one that can, and its index is reported.

    Training tolerates some, evaluation none. timm's own data set replaces images silently, also in evaluation.
    """

    split: str

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Read:
        """What the files of a sample hold. Raises DataError naming the file and what is wrong with it."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The file of the image, as users know it."""
        raise NotImplementedError

    def readable(self, key: SampleKey) -> tuple[Read, int, int]:
        """What was read, at which index, and the index of the unreadable image that it replaces, or READABLE.

        Raises DataError where no image of the split can be read.
        """
        for distance in range(len(self)):
            index = (key.index + distance) % len(self)
            try:
                return self.read(index), index, key.index if distance else READABLE
            except DataError:
                continue
        raise DataError(f"none of the {len(self)} images of the {self.split} split can be read: {self.problem(0)}")

    def problem(self, index: int) -> str:
        """Why an image could not be read, in one line."""
        try:
            self.read(index)
        except DataError as error:
            return str(error)
        return f"{printable(self.name(index))}: unreadable once, readable now"


@contextmanager
def naming(name: str, kind: str = "image") -> Iterator[None]:
    """Turns whatever goes wrong inside into a DataError with the name of the file, its kind and the cause."""
    try:
        yield
    # whatever a file system and decoders raise, for every format and every place of the damage
    except Exception as error:
        raise DataError(f"{printable(name)}: unreadable {kind} ({cause_of(error)})") from None
