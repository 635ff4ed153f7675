"""The order of samples is a pure function of (seed, epoch), wherever an epoch is picked up."""

from __future__ import annotations

from collections import Counter

from experiments.data.order import EpochOrder, SampleKey


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
