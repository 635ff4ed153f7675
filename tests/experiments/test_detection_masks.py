"""Masks of regions: what is learned, and how they are pasted into an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.tasks.detectors.detections import paste_masks
from experiments.tasks.detectors.mask_targets import mask_targets


def test_a_pasted_mask_by_hand():
    """A grid of 2 x 2 cells on 8 x 4 px: its left half is the object, and the middle is interpolated."""
    grid = torch.tensor([[[1.0, 0], [1, 0]]])
    (mask,) = paste_masks(grid, torch.tensor([[2.0, 1, 10, 5]]), (6, 12))
    # cells are centred at x = 4 and 8: probabilities at 2.5, 3.5, 4.5, 5.5, 6.5 are 0.625, 0.875, 0.875, 0.625, 0.375;
    # rows are centred at y = 2 and 4, so that those of 1.5 and 4.5 have 0.75 of it
    assert mask.nonzero().tolist() == [
        *([1, x] for x in (3, 4)), *([y, x] for y in (2, 3) for x in (2, 3, 4, 5)), *([4, x] for x in (3, 4)),
    ]  # fmt: skip


def test_a_probability_of_one_half_is_in_the_mask():
    (mask,) = paste_masks(torch.full((1, 4, 4), 0.5), torch.tensor([[0.0, 0, 8, 8]]), (8, 8))
    assert mask[1:7, 1:7].all() and mask.sum() == 36  # less at the edge, where nothing is outside
    assert not paste_masks(torch.full((1, 4, 4), 0.4999), torch.tensor([[0.0, 0, 8, 8]]), (8, 8)).any()


@pytest.mark.parametrize("cells", [5, 28])
def test_pasted_masks_equal_interpolation_written_out(cells):
    torch.manual_seed(0)
    corner = torch.rand(12, 2) * 40 - 8
    boxes = torch.cat([corner, corner + torch.rand(12, 2) * 50 + 0.2], 1)
    grids = torch.rand(12, cells, cells)
    masks = paste_masks(grids, boxes, (40, 50))
    assert masks.shape == (12, 40, 50) and masks.dtype == torch.bool
    for mask, grid, box in zip(masks, grids, boxes):
        expected = interpolated(grid, box, (40, 50))
        clear = (expected - 0.5).abs() > 1e-4
        assert torch.equal(mask[clear], expected[clear] >= 0.5)
    assert masks.any((1, 2)).sum() > 6


def test_boxes_outside_of_the_image_or_without_area_are_nowhere():
    boxes = torch.tensor([[60.0, 0, 70, 10], [5, 5, 5, 20], [0, -9, 10, -1], [4, 4, 4.2, 4.2]])
    assert not paste_masks(torch.ones(4, 28, 28), boxes, (40, 50)).any()
    assert paste_masks(torch.ones(0, 28, 28), torch.zeros(0, 4), (40, 50)).shape == (0, 40, 50)


def test_a_pasted_target_is_the_object_again():
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    mask = (((x - 40) / 24) ** 2 + ((y - 30) / 20) ** 2 < 1).to(torch.uint8)
    box = torch.tensor([[16.0, 10, 64, 50]])
    targets = mask_targets(mask[None], torch.tensor([0]), box, 28)
    pasted = paste_masks(targets, box, (64, 80))[0]
    assert (pasted & mask.bool()).sum() / (pasted | mask.bool()).sum() > 0.96


def test_targets_by_hand():
    """A region of 4 x 4 px in 2 x 2 cells: covered by 4, 2, 1 and 0 px of the object."""
    mask = torch.zeros(2, 8, 8, dtype=torch.uint8)
    mask[1, 2:4, 2:5] = 1
    mask[1, 4, 2] = 1
    region = torch.tensor([[2.0, 2, 6, 6]])
    assert mask_targets(mask, torch.tensor([1]), region, 2).tolist() == [[[1, 1], [0, 0]]]
    assert mask_targets(mask, torch.tensor([0]), region, 2).tolist() == [[[0, 0], [0, 0]]]
    both = mask_targets(mask, torch.tensor([1, 0, 1]), region.repeat(3, 1), 2)
    assert both.flatten(1).sum(1).tolist() == [2, 0, 2]
    assert mask_targets(mask, torch.tensor([], dtype=torch.int64), region[:0], 2).shape == (0, 2, 2)


def interpolated(grid: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """[h, w]: bilinear interpolation between the centres of cells, with zeros around them."""
    cells = len(grid)
    padded = torch.zeros(cells + 2, cells + 2)
    padded[1:-1, 1:-1] = grid
    weights = []
    for start, end, length in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        place = (torch.arange(length) + 0.5 - start) / (
            end - start
        ) * cells + 0.5  # of cells with the zeros around them
        distance = (place[:, None] - torch.arange(cells + 2)).abs()
        weights.append((1 - distance).clamp(min=0))
    return weights[0] @ padded @ weights[1].T
