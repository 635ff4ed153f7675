"""The order of samples is a pure function of (seed, epoch), wherever an epoch is picked up."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch

from experiments.data.loading import Batches
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


GROUPS = np.array([0, 1, 1, 0, 1] * 10)  # 20 and 30 images


def test_without_groups_and_canvas_the_order_is_what_it_always_was():
    """From before batches could be grouped."""
    digest = hashlib.sha256()
    for given in ({}, {"repeats": 3, "length": 48}, {"share": Share(1, 3, 2)}, {"seed": 5, "share": Share(0, 2, 3, 0)}):
        digest.update(str([[tuple(key)[:3] for key in keys] for keys in epoch(2, first=1, **given)]).encode())
    assert digest.hexdigest()[:16] == "0292f222b4de9558"


def test_a_grouped_epoch_has_as_many_whole_batches_of_one_group_as_there_can_be():
    for number in range(5):
        batches = epoch(number, groups=GROUPS)
        assert [len(batch) for batch in batches] == [8] * 6
        indices = [key.index for batch in batches for key in batch]
        assert len(set(indices)) == 48, "every image at most once"
        mixed = [batch for batch in batches if len({GROUPS[key.index] for key in batch}) > 1]
        assert len(mixed) <= 1, "20 = 2 · 8 + 4 and 30 = 3 · 8 + 6"
        assert sum(not GROUPS[batch[0].index] for batch in batches if batch not in mixed) >= 2


def test_a_group_keeps_the_order_of_the_permutation_and_batches_are_shuffled():
    permutation = [key.index for batch in epoch(length=48) for key in batch]
    groups = GROUPS[:48]  # 20 and 28 images
    whole, left_over = [], []
    for group in (0, 1):
        own = [index for index in permutation if groups[index] == group]
        cut = len(own) // 8 * 8
        whole += [own[first : first + 8] for first in range(0, cut, 8)]
        left_over += own[cut:]
    expected = [*whole, sorted(left_over, key=permutation.index)]
    found = [[key.index for key in batch] for batch in epoch(length=48, groups=groups)]
    assert sorted(found) == sorted(expected) and found != expected
    order = stream(0, 0, purpose="batches").permutation(6)
    assert found == [expected[number] for number in order]


def test_which_images_are_left_out_of_a_grouped_epoch_does_not_follow_their_group():
    left_out = Counter()
    for number in range(400):
        seen = {key.index for batch in epoch(number, groups=GROUPS) for key in batch}
        left_out.update(int(GROUPS[index]) for index in set(range(50)) - seen)
    assert left_out[0] + left_out[1] == 800 and left_out[0] > 200, "left-overs are 4 and 6"


@pytest.mark.parametrize("groups", [np.zeros(50, np.int64), np.arange(50), np.arange(50) % 7])
def test_one_group_and_many_small_ones_lose_no_batch(groups):
    batches = epoch(groups=groups)
    assert len(batches) == 6 and len({key.index for batch in batches for key in batch}) == 48


def test_a_grouped_epoch_is_picked_up_and_dealt_out_as_any_other():
    whole = epoch(3, groups=GROUPS)
    assert epoch(3, groups=GROUPS) == whole != epoch(4, groups=GROUPS)
    assert epoch(3, first=4, groups=GROUPS) == whole[4:]
    parts = [epoch(3, groups=GROUPS, share=Share(rank, 2, mixed_parts=0)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*parts)] == whole


def test_repeated_views_stay_in_the_group_of_their_image():
    keys = [key for batch in epoch(length=48, repeats=3, groups=GROUPS[:48]) for key in batch]
    assert len(set(keys)) == 48 and set(Counter(key.index for key in keys).values()) == {3}


def test_a_canvas_is_that_of_the_whole_batch_and_every_key_carries_it():
    asked = []

    def canvas(keys):
        asked.append(keys)
        return 32 * len(asked), 32 * max(key.index for key in keys)

    parts = epoch(first=2, canvas=canvas, share=Share(1, 2, 2, mixed_parts=0))
    whole = epoch(first=2)
    assert asked == whole, "once for each batch from the first one on, with the keys of all devices"
    for number, batch in enumerate(whole):
        expected = (32 * (number + 1), 32 * max(key.index for key in batch))
        own = [key for part in parts[2 * number : 2 * number + 2] for key in part]
        assert own == [key._replace(canvas=expected) for key in batch[4:]]
    assert all(key.canvas is None for batch in epoch(canvas=lambda keys: None) for key in batch)
    assert all(key.canvas is None for batch in epoch(shuffle=False, canvas=lambda keys: (32, 32)) for key in batch)


class Plain:
    """A data set of another package: neither it nor its bases know of groups or canvases."""

    groups, canvas = ["its own"], "its own"

    def __len__(self):
        return 50

    def __getitem__(self, key):
        return key

    def collate(self, samples):
        return samples


class Shaped(Plain):
    def batch_groups(self):
        return GROUPS

    def batch_canvas(self, keys):
        return 32, 32 * len(keys)


def test_a_data_set_may_have_groups_and_a_canvas_or_neither():
    def keys(dataset, shuffle=True):
        return list(Batches(dataset, 8, 0, shuffle, 0, torch.device("cpu")).order.at(2))

    assert keys(Plain()) == epoch(2)
    expected = [[key._replace(canvas=(32, 256)) for key in batch] for batch in epoch(2, groups=GROUPS)]
    assert keys(Shaped()) == expected
    assert keys(Shaped(), shuffle=False) == keys(Plain(), shuffle=False)
