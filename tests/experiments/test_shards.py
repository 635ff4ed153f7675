"""Splits of WebDataset shards that share a shard are refused before anything is trained."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from errors import DataError
from experiments.config import resolve
from experiments.data.registry import check_root
from experiments.data.shards import shards


@pytest.fixture
def root(tmp_path):
    """Three shards to train on and two to be judged, all of one size, and the list that names them."""
    names = [f"train-{number}.tar" for number in range(3)] + [f"validation-{number}.tar" for number in range(2)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode().ljust(2000, b"."))
    list_splits(tmp_path, train=names[:3], validation=names[3:])
    return tmp_path


def list_splits(root, name="_info.json", **splits):
    listed = {
        split: {"name": split, "num_samples": 8, "filenames": files, "shard_lengths": [8] * len(files)}
        for split, files in splits.items()
    }
    (root / name).write_text(json.dumps({"splits": listed}))


def check(root, **given):
    settings = {"data.root": str(root), "data.reader": "wds/any", "data.num_classes": 3}
    check_root(resolve("imagenet", settings | {f"data.{key}": value for key, value in given.items()}))


def refused(root, says, **given):
    with pytest.raises(DataError, match="a model would be judged on what it was trained on") as error:
        check(root, **given)
    assert says in str(error.value) and str(root) in str(error.value) and "\n" not in str(error.value)


def test_splits_of_their_own_shards_are_taken(root):
    check(root)
    assert [path.name for path in shards(root, "validation")] == ["validation-0.tar", "validation-1.tar"]
    (root / "_info.json").rename(root / "info.json")
    check(root)


def test_a_shard_in_both_lists_is_refused(root):
    list_splits(root, train=["train-0.tar", "train-1.tar"], validation=["validation-0.tar", "train-1.tar"])
    refused(root, "data.train_split=train and data.eval_split=validation share shards (train-1.tar)")
    for name in ("train-1.tar", "train-0.tar"):
        (root / name).unlink()
    refused(root, "share shards (train-1.tar)")


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard link", "symbolic link"])
def test_a_shard_of_two_names_is_refused(root, link):
    (root / "validation-1.tar").unlink()
    link(root / "train-2.tar", root / "validation-1.tar")
    refused(root, "share shards (train-2.tar and validation-1.tar)")


def test_a_copy_of_a_shard_is_refused(root):
    shutil.copyfile(root / "train-2.tar", root / "validation-0.tar")
    refused(root, "hold copies of shards (train-2.tar and validation-0.tar)")


def test_splits_that_are_spelled_as_files_are_compared_by_them(root):
    pytest.importorskip("braceexpand")
    (root / "_info.json").unlink()
    spelled = {"train_split": "train-{0..2}.tar|24", "eval_split": "validation-{0..1}.tar"}
    assert [path.name for path in shards(root, spelled["train_split"])] == [f"train-{n}.tar" for n in range(3)]
    check(root, **spelled)
    refused(root, "(train-2.tar)", **spelled | {"eval_split": "validation-0.tar::train-2.tar"})


def test_a_list_that_cannot_be_read_or_lacks_the_split_is_named(root):
    with pytest.raises(DataError, match=r"unknown split 'valid'; did you mean 'validation'\?"):
        check(root, eval_split="valid")
    list_splits(root, train="train-0.tar", validation=[])
    with pytest.raises(DataError, match=r"names no shards .* of train"):
        check(root)
    (root / "_info.json").write_text('{"splits": ')
    with pytest.raises(DataError, match=r"_info\.json:1: torn or not JSON"):
        check(root)


def test_the_shards_are_those_that_timm_reads(root):
    pytest.importorskip("webdataset")
    from timm.data.readers.reader_wds import ReaderWds

    for split in ("train", "validation", "train-{0..1}.tar|16"):
        reader = ReaderWds(str(root), split=split)
        assert [str(path) for path in shards(root, split)] == [f"{root}/{name}" for name in reader.split_info.filenames]
