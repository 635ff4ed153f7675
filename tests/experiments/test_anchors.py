"""Anchors, what they are assigned to and how they are sampled: by hand, and as torchvision does where it agrees."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from experiments.tasks.detectors.anchors import Anchors, flat, usable
from experiments.tasks.detectors.assignment import IGNORED, NEGATIVE, match, sample
from experiments.tasks.detectors.options import CASCADE_STAGES
from experiments.tasks.detectors.suppression import best, strongest, suppress


def test_anchors_by_hand():
    """By row, column, shape (height / width 0.5, 1, 2) and size; centred on multiples of the stride."""
    anchors = Anchors((8, 16), (1.0, 2.0))
    fine, coarse = anchors([torch.zeros(1, 3, 2, 3), torch.zeros(1, 3, 1, 1)])
    assert anchors.per_cell == 6 and fine.shape == (2 * 3 * 6, 4) and coarse.shape == (6, 4)
    root = 2**0.5
    halves = [(4 * root, 4 / root), (8 * root, 8 / root), (4, 4), (8, 8), (4 / root, 4 * root), (8 / root, 8 * root)]
    centre = torch.tensor([16.0, 8.0])  # column 2 of row 1
    expected = [[16 - w, 8 - h, 16 + w, 8 + h] for w, h in halves]
    torch.testing.assert_close(fine[5 * 6 :], torch.tensor(expected))
    torch.testing.assert_close(coarse, (fine[5 * 6 :] - centre.repeat(2)) * 2)


def test_anchors_are_torchvisions_where_its_rounding_changes_nothing():
    maps = [torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 3, 4)]
    ours = Anchors((16, 32), (8.0,))(maps)
    theirs = AnchorGenerator(((128,), (256,)), ((1.0,),) * 2)(ImageList(torch.zeros(1, 3, 96, 128), [(96, 128)]), maps)
    assert torch.equal(torch.cat([level.view(-1, 3, 4)[:, 1] for level in ours]), theirs[0])


def test_strides_do_not_depend_on_the_image():
    """A map of 7 columns over 800 px has stride 128; torchvision would take 800 // 7 = 114."""
    (level,) = Anchors((128,), (4.0,))([torch.zeros(1, 1, 1, 7)])
    assert ((level[:, 0] + level[:, 2]) / 2)[::3].tolist() == [0, 128, 256, 384, 512, 640, 768]


def test_predictions_are_in_the_order_of_the_anchors():
    level = torch.arange(2 * 6 * 2 * 3).view(2, 6, 2, 3)
    flattened = flat(level, 3, 2)
    assert flattened.shape == (2, 2 * 3 * 3, 2) and flattened.dtype == torch.float32
    for row, column, anchor, number in ((0, 0, 0, 0), (1, 2, 1, 1), (0, 2, 2, 0)):
        assert flattened[1, (row * 3 + column) * 3 + anchor, number] == level[1, anchor * 2 + number, row, column]


def test_anchors_count_within_the_image_as_it_would_be_padded_alone():
    """An image of 40 x 70 px is padded to 64 x 96; a larger one of the batch adds the rest."""
    (level,) = Anchors((16,), (8.0,))([torch.zeros(1, 1, 8, 8)])
    centres = usable(level, (40, 70)).view(8, 8, 3)
    assert centres[:4, :6].all() and centres.sum() == 4 * 6 * 3


def test_anchors_within_a_border_of_the_image():
    boxes = torch.tensor([[0.0, 0, 69, 39], [-1, 0, 30, 30], [0, -2, 30, 30], [40, 0, 70, 30], [40, 0, 60, 41.5]])
    assert usable(boxes, (40, 70), 0).tolist() == [True, False, False, False, False]
    assert usable(boxes, (40, 70), 1).tolist() == [True, True, False, True, False]
    assert usable(boxes, (40, 70), 2).tolist() == [True, True, True, True, True]


def test_boxes_are_assigned_by_hand():
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    boxes = torch.tensor([
        [0, 0, 10, 8],  # IoU 0.8 with the first
        [0, 0, 10, 4.5],  # 0.45 with the first
        [0, 0, 10, 3],  # 0.3
        [20, 0, 30, 4],  # 0.4 with the second, its best
        [20, 6, 30, 10],  # 0.4 with the second, its best, too
        [50, 50, 60, 60],
    ])  # fmt: skip
    plain = [0, IGNORED, NEGATIVE, IGNORED, IGNORED, NEGATIVE]
    assert match(objects, boxes, 0.7, 0.4).tolist() == plain
    assert match(objects, boxes, 0.7, 0.4, best=0.5).tolist() == plain
    assert match(objects, boxes, 0.7, 0.4, best=0.3).tolist() == [0, IGNORED, NEGATIVE, 1, 1, NEGATIVE]
    assert match(objects[:0], boxes, 0.7, 0.4, best=0.3).tolist() == [NEGATIVE] * 6
    assert match(objects, boxes[:0], 0.7, 0.4, best=0.3).tolist() == []


def test_the_best_box_of_an_object_is_its_own_even_if_it_fits_another_better():
    objects = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [30, 30, 40, 40]])
    assert match(objects, boxes, 0.7, 0.3).tolist() == [0, NEGATIVE]
    assert match(objects, boxes, 0.7, 0.3, best=0.3).tolist() == [1, NEGATIVE]
    apart = torch.tensor([[0.0, 0, 10, 10], [80, 80, 90, 90]])  # the second overlaps with nothing
    assert match(apart, boxes, 0.7, 0.3, best=0.0).tolist() == [0, NEGATIVE]


def test_assignment_is_torchvisions_where_no_box_is_the_best_of_two_objects():
    torch.manual_seed(0)
    corner = torch.rand(500, 2) * 80
    boxes = torch.cat([corner, corner + torch.rand(500, 2) * 30 + 1], 1)
    objects = torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 50], [65, 5, 75, 40]])
    expected = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(objects, boxes))
    matches = match(objects, boxes, 0.5, 0.4, best=0.0)
    assert torch.equal(matches, expected) and set(matches.tolist()) == {0, 1, 2, IGNORED, NEGATIVE}


def test_the_sample_is_torchvisions_with_draws_of_its_own_generator():
    matches = torch.tensor([NEGATIVE] * 300 + [0] * 200 + [IGNORED] * 50)[torch.randperm(550)]
    labels = torch.where(matches >= 0, 1, torch.where(matches == NEGATIVE, 0, -1))
    for number in (64, 256):
        torch.manual_seed(5)
        expected = BalancedPositiveNegativeSampler(number, 0.25)([labels])
        torch.manual_seed(6)  # changes nothing
        positives, negatives = sample(matches, number, 0.25, torch.Generator().manual_seed(5))
        assert torch.equal(positives, torch.where(expected[0][0])[0]) and len(positives) == number // 4
        assert torch.equal(negatives, torch.where(expected[1][0])[0]) and len(negatives) == number * 3 // 4


def test_negatives_fill_the_sample_where_positives_are_few():
    matches = torch.tensor([3, NEGATIVE, NEGATIVE, IGNORED, NEGATIVE])
    positives, negatives = sample(matches, 4, 0.5, torch.Generator())
    assert positives.tolist() == [0] and negatives.tolist() == [1, 2, 4]
    assert len(sample(matches, 2, 0.5, torch.Generator())[1]) == 1


@pytest.mark.parametrize("scales", [stage.scales for stage in CASCADE_STAGES])
def test_boxes_survive_their_code(scales):
    torch.manual_seed(0)
    corner = torch.rand(2, 50, 2) * 100
    boxes, regions = torch.cat([corner, corner + torch.rand(2, 50, 2) * 60 + 4], 2)
    coder = BoxCoder(scales)
    torch.testing.assert_close(coder.decode_single(coder.encode_single(boxes, regions), regions), boxes)
    (code,) = coder.encode_single(torch.tensor([[11.0, 4, 31, 14]]), torch.tensor([[10.0, 0, 20, 20]]))
    expected = torch.tensor([0.6, -0.05, torch.tensor(2.0).log(), torch.tensor(0.5).log()]) * torch.tensor(scales)
    torch.testing.assert_close(code, expected)


def test_equal_scores_keep_their_order():
    scores = torch.tensor([0.5, 0.9, 0.5, 0.5, 0.9])
    assert best(scores, 4).tolist() == [1, 4, 0, 2]
    apart = torch.arange(5.0)[:, None] * 100 + torch.tensor([0.0, 0, 10, 10])
    assert suppress(apart, scores, torch.zeros(5), 0.5, 9).tolist() == [1, 4, 0, 2, 3]
    many = torch.arange(3000.0)[:, None] * 100 + torch.tensor([0.0, 0, 10, 10])  # torchvision takes another way there
    assert suppress(many, torch.full((3000,), 0.5), torch.arange(3000) % 7, 0.5, 2000).tolist() == list(range(2000))


def test_the_worse_of_two_boxes_of_a_kind_goes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 4]])
    scores, kinds = torch.tensor([0.3, 0.4, 0.2, 0.1]), torch.tensor([0, 0, 1, 0])
    assert suppress(boxes, scores, kinds, 0.5, 9).tolist() == [1, 2, 3]
    found = strongest(boxes * 3, scores, kinds, (15, 100), 2)
    assert found.boxes.tolist() == [[0, 0, 30, 15], [0, 0, 30, 15]] and found.classes.tolist() == [0, 1]
