"""The order of samples is a pure function of (seed, epoch), wherever an epoch is picked up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from experiments.data.order import EpochOrder, SampleKey, Share, stream


def epoch(number=0, first=0, **given):
    settings = {"length": 50, "batch_size": 8, "seed": 0, "shuffle": True} | given
    return list(EpochOrder(**settings).at(number, first))


def test_every_image_at_most_once_and_only_the_incomplete_batch_is_left_out():
    batches = epoch()
    assert [len(batch) for batch in batches] == [8] * 6
    counts = Counter(key.index for batch in batches for key in batch)
    assert max(counts.values()) == 1
    assert len(counts) == 48


def test_epochs_and_seeds_differ_and_repeat_exactly():
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0, seed=1) != epoch(0)


def test_picking_up_in_the_middle_continues_the_same_epoch():
    assert epoch(3, first=4) == epoch(3)[4:]


def test_evaluation_sees_all_in_order():
    keys = [key for batch in epoch(shuffle=False) for key in batch]
    assert keys == [SampleKey(0, i) for i in range(50)]


def test_repeated_augmentation_shows_each_drawn_image_three_times():
    keys = [key for batch in epoch(length=48, repeats=3) for key in batch]
    assert len(keys) == 48
    assert set(Counter(key.index for key in keys).values()) == {3}
    assert len(set(keys)) == 48


@pytest.mark.parametrize("at_once", [None, 2, 3, 4])
@pytest.mark.parametrize(
    ("batch_size", "devices"), [(1, 1), (2, 1), (7, 1), (7, 3), (8, 2), (8, 3), (24, 1), (24, 2), (24, 3), (24, 5)]
)
def test_a_batch_is_dealt_out_whole_and_partners_stay_together(batch_size, devices, at_once):
    parts = [part for rank in range(devices) for part in Share(rank, devices, at_once).places(batch_size)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(batch_size))
    for part in parts:
        assert len(part) <= (at_once or batch_size)
        assert part[::-1].tolist() == [batch_size - 1 - place for place in part]  # flipped: every image at its partner


@pytest.mark.parametrize("at_once", [None, 1, 3])
@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (7, 3), (8, 8), (24, 5)])
def test_a_batch_that_is_not_mixed_is_dealt_out_image_by_image(batch_size, devices, at_once):
    parts = [
        part for rank in range(devices) for part in Share(rank, devices, at_once, mixed_parts=0).places(batch_size)
    ]
    assert np.concatenate(parts).tolist() == list(range(batch_size)), "neighbours stay together, in order"
    assert all(len(part) <= (at_once or batch_size) for part in parts)
    assert len(parts) >= devices and all(len(part) for part in parts)


@pytest.mark.parametrize("mixed_parts", [0, 1, 2, 4])
def test_one_device_with_the_whole_batch_sees_it_in_order(mixed_parts):
    assert [part.tolist() for part in Share(mixed_parts=mixed_parts).places(8)] == [list(range(8))]


@pytest.mark.parametrize("length", [1, 4, 50, 51])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_every_image_is_judged_exactly_once_whatever_the_devices(length, devices):
    shares = [Share(rank, devices) for rank in range(devices)]
    keys = [key for share in shares for batch in epoch(length=length, shuffle=False, share=share) for key in batch]
    assert keys == [SampleKey(0, i) for i in range(length)]


def test_devices_together_train_on_what_one_trains_on():
    shares = [Share(rank, 3, 2) for rank in range(3)]
    steps = [epoch(2, share=share) for share in shares]
    for number, whole in enumerate(epoch(2)):
        dealt = [
            key
            for share, own in zip(shares, steps)
            for part in own[number * len(share.places(8)) :][: len(share.places(8))]
            for key in part
        ]
        assert sorted(dealt) == sorted(whole)


def test_streams_of_different_purposes_and_keys_differ():
    keys = [((1, 2), "order"), ((1, 2, 0), "order"), ((1, 2), "sample"), ((1, 2, 0), "sample"), ((1, 2), "")]
    draws = {int(stream(*key, purpose=purpose).integers(2**63)) for key, purpose in keys}
    assert len(draws) == len(keys)
