"""The WebDataset shards of a split: those that its root lists, or that its name spells, as timm reads it. No torch."""

from __future__ import annotations

import filecmp
from collections.abc import Collection
from pathlib import Path
from typing import Any

from errors import DataError, UnreadableError, unknown
from untrusted_files import keys_and_values

INFO = ("_info.json", "info.json")  # lists the splits and the shards of each


def refuse_shared_shards(root: Path, train_split: str, eval_split: str) -> None:
    """Raises DataError where two splits have a shard in common, by whatever names and links, or one that is a copy.

    Shards that are not there yet are compared by their names. Equal images in different shards are not found.
    """
    trained = {_identity(path): path for path in shards(root, train_split)}
    sizes: dict[int, list[Path]] = {}
    for path in trained.values():
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(path)
    for judged in shards(root, eval_split):
        other, relation = trained.get(_identity(judged)), "share"
        if other is None and judged.is_file():
            other, relation = _copy(judged, sizes.get(judged.stat().st_size, ())), "hold copies of"
        if other is not None:
            named = judged.name if other == judged else f"{other.name} and {judged.name}"
            raise DataError(
                f"data.root={root}: data.train_split={train_split} and data.eval_split={eval_split} {relation} shards "
                f"({named}): a model would be judged on what it was trained on"
            )


def shards(root: Path, split: str) -> list[Path]:
    """The shards of a split, whether they exist or not; none where the folder does not say which they are.

    Raises DataError where its list of splits cannot be read or lacks the split.
    """
    if "tar" in split or ".." in split:  # timm takes it for names of files: a-{0000..0099}.tar|100000
        names = _expanded(split.partition("|")[0])
    elif (info := _info(root)) is None:
        names = []
    else:
        splits = info.get("splits")
        splits = splits if isinstance(splits, dict) else {}
        if split not in splits:
            raise DataError(f"data.root={root}: {unknown('split', split, splits)}")
        listed = splits[split].get("filenames") if isinstance(splits[split], dict) else None
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"data.root={root}: its list of splits names no shards (filenames) of {split}")
        names = listed
    return [root / name for name in names]


def _info(root: Path) -> dict[str, Any] | None:
    for name in INFO:
        try:
            return keys_and_values(root / name)
        except FileNotFoundError:
            continue
        except UnreadableError as error:
            raise DataError(str(error)) from None
    return None


def _expanded(names: str) -> list[str]:
    """Names of files in which braces stand for several; none without webdataset's package, as nothing is read then."""
    try:
        from braceexpand import braceexpand
    except ImportError:
        return []
    try:
        return [name for part in names.split("::") for name in braceexpand(part)]
    except ValueError as error:
        raise DataError(f"{names}: {error}") from None


def _identity(path: Path) -> tuple[int, int] | Path:
    """(device, inode) of a file; of one that is not there, its place."""
    try:
        status = path.stat()
    except OSError:  # named when it is read
        return path.resolve()
    return status.st_dev, status.st_ino


def _copy(path: Path, others: Collection[Path]) -> Path | None:
    """The first of some files of the same size that has the same content."""
    try:
        return next((other for other in others if filecmp.cmp(path, other, shallow=False)), None)
    except OSError:  # named when it is read
        return None
