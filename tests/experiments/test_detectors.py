"""Detectors: losses and results are torchvision's where settings agree, else written out; and what they may depend on."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import roi_heads as torchvision_roi_heads
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou, clip_boxes_to_image, generalized_box_iou_loss

from errors import ConfigError
from experiments.schema import Model
from experiments.tasks.detectors import regions as our_regions
from experiments.tasks.detectors.assignment import NEGATIVE
from experiments.tasks.detectors.detections import RawDetections
from experiments.tasks.detectors.detector import STRIDES, build_detector
from experiments.tasks.detectors.losses import image_weights, offset_loss
from experiments.tasks.detectors.mask_targets import mask_targets
from experiments.tasks.detectors.options import PUBLISHED, BoxStage
from experiments.tasks.detectors.proposals import ProposalNetwork
from experiments.tasks.detectors.region_networks import BoxNetwork, MaskNetwork
from experiments.tasks.detectors.region_pooling import RegionPooling
from experiments.tasks.detectors.regions import RegionHeads
from experiments.tasks.detectors.retinanet import DenseHead
from experiments.tasks.detectors.targets import Targets
from experiments.tasks.necks.detection_fpn import DetectionFPN
from experiments.tasks.network import dense_backbone

CLASSES, WIDTH = 5, 16
SIZE = (96, 128)
SMALL = {"width": WIDTH, "fc_width": 24, "convs": 2, "rois_per_image": 24, "anchors_per_image": 32,
         "candidates_training": 60, "proposals_training": 40, "candidates_evaluation": 60,
         "proposals_evaluation": 30, "score_threshold": 0.0}  # fmt: skip
HEADS = tuple(PUBLISHED)
WITHOUT_BATCH_NORM = ("retinanet", "faster_rcnn", "mask_rcnn")
BOXES = [
    [[8.0, 8, 60, 56], [50, 30, 126, 94]],
    [[20.0, 10, 100, 80]],
    [[0.0, 0, 40, 40], [64, 10, 110, 50], [30, 50, 120, 90]],
    [[5.0, 40, 70, 90]],
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_has_a_gradient_with_and_without_objects(head):
    model = detector(head)
    for objects in (True, False):
        model.zero_grad()
        losses = model(*images(2), targets(2, objects=objects))
        assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        of_boxes = [float(loss) for name, loss in losses.items() if name.startswith(("boxes", "masks", "proposals"))]
        assert all(loss > 0 for loss in of_boxes) if objects else of_boxes == [0.0] * len(of_boxes)


@pytest.mark.parametrize("head", HEADS)
def test_random_choices_are_the_generators(head):
    """Same generators, same bits, whatever the state of the global one; other generators, another sample."""
    model = detector(head)
    results = []
    for seed, other in ((1, 0), (1, 1), (2, 1)):
        model.zero_grad()
        torch.manual_seed(other)
        before = torch.get_rng_state()
        losses = model(*images(2), targets(2, seed=seed))
        sum(losses.values()).backward()
        assert torch.equal(torch.get_rng_state(), before)
        results.append((*losses.values(), *(p.grad for p in model.parameters())))
    first, second, third = results
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third)) is (head == "retinanet")  # which samples nothing


@pytest.mark.parametrize("head", WITHOUT_BATCH_NORM)
def test_a_batch_of_two_groups_learns_as_two_batches(head):
    model = detector(head)
    whole, parts = gradients(model, range(4), [7, 7, 3, 3]), [
        gradients(model, chosen, [0, 0]) for chosen in ((0, 1), (2, 3))
    ]  # fmt: skip
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2, rtol=1e-4, atol=2e-6)
    if head == "retinanet":  # the others have as many regions of every image
        one_group = gradients(model, range(4), [0, 0, 0, 0])
        assert not torch.allclose(whole["boxes"], one_group["boxes"], rtol=1e-4)


@pytest.mark.parametrize("head", WITHOUT_BATCH_NORM)
def test_groups_may_be_mixed_and_of_unequal_size(head):
    model = detector(head)
    mixed = gradients(model, [0, 2, 3, 1], [5, 6, 6, 5])
    for name, value in gradients(model, range(4), [0, 0, 1, 1]).items():
        torch.testing.assert_close(mixed[name], value, rtol=1e-4, atol=2e-6)
    unequal = gradients(model, [0, 1, 2], [0, 0, 1])
    pair, single = gradients(model, [0, 1], [0, 0]), gradients(model, [2], [0])
    for name, value in unequal.items():
        torch.testing.assert_close(value, (2 * pair[name] + single[name]) / 3, rtol=1e-4, atol=2e-6)


def test_weights_of_images_by_hand():
    """Counts 6 + 2 in one group, 0 in another: a third of the sums of 8, and nothing divided by 0."""
    weights = image_weights(torch.tensor([6, 0, 2]), torch.tensor([4, 9, 4]))
    torch.testing.assert_close(weights, torch.tensor([2 / 3 / 8, 1 / 3, 2 / 3 / 8]))


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_does_not_depend_on_the_other_images(head):
    model = spread(detector(head)).eval()
    pixels, sizes = images(3)
    with torch.no_grad():
        together = model(pixels, sizes)
        alone = [model(pixels[i : i + 1], sizes[i : i + 1])[0] for i in range(3)]
        again = model(pixels, sizes)
    for (height, width), one, other, same in zip(sizes.tolist(), alone, together, again):
        assert_same(one, other, exactly=False)
        assert_same(other, same)
        assert 0 < len(one.boxes) <= 100 and set(one.classes.tolist()) <= set(range(CLASSES))
        assert (one.boxes >= 0).all() and (one.boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert (one.scores.diff() <= 0).all() and one.scores.min() >= 0 and one.scores.max() <= 1
        with_masks = head in ("mask_rcnn", "cascade_mask_rcnn")
        assert (one.probabilities is not None) is with_masks
        if with_masks:
            assert one.probabilities.shape == (len(one.boxes), 28, 28)


@pytest.mark.parametrize("head", HEADS)
def test_an_image_in_which_nothing_is_found(head):
    model = detector(head, score_threshold=1.0).eval()
    with torch.no_grad():
        (found,) = model(*images(1))
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))
    assert found.probabilities is None or found.probabilities.shape == (0, 28, 28)


@pytest.mark.parametrize("head", HEADS)
def test_losses_are_float32_under_autocast(head):
    model = detector(head)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*images(2), targets(2))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model(*images(1))[0]
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_unknown_heads_and_missing_targets_are_refused():
    with pytest.raises(ConfigError, match="'mask_rcn'; did you mean 'mask_rcnn'"):
        build_detector(backbone(), "mask_rcn", CLASSES)
    with pytest.raises(ConfigError, match="convs=5"):
        detector("retinanet", convs=5)
    with pytest.raises(TypeError, match="targets"):
        detector("retinanet")(*images(1))


def test_the_losses_of_retinanet_are_torchvisions():
    head = DenseHead((8, 16, 32), CLASSES, options("retinanet"))
    randomise(head)
    maps = [torch.randn(1, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in (8, 16, 32)]
    mine = targets(1)
    losses = head.losses(maps, [SIZE], mine)
    anchors = torch.cat(head.anchors(maps))
    matches = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(mine.boxes[0], anchors))
    assert (matches >= 0).sum() > 10
    theirs = head.head.compute_loss(
        [{"boxes": mine.boxes[0], "labels": mine.classes[0]}], head.head(maps), [anchors], [matches]
    )
    torch.testing.assert_close(losses["classes"], theirs["classification"])
    torch.testing.assert_close(losses["boxes"], theirs["bbox_regression"])


@pytest.mark.parametrize("training", [True, False])
def test_proposals_and_their_losses_are_torchvisions(training):
    ours = ProposalNetwork(STRIDES, options("mask_rcnn", anchor_beta=1 / 9)).train(training)
    randomise(ours)
    maps = [torch.randn(2, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    mine = targets(2)

    class Generator(nn.Module):
        def forward(self, images, features):
            return [torch.cat(ours.anchors(features))] * len(images.image_sizes)

    theirs = RegionProposalNetwork(
        Generator(), ours.head, 0.7, 0.3, 32, 0.5, {"training": 60, "testing": 60}, {"training": 40, "testing": 30}, 0.7
    ).train(training)
    sizes = [SIZE, (90, 100)]
    features = OrderedDict((str(i), level) for i, level in enumerate(maps))
    proposals, losses = ours(maps, sizes, mine if training else None)
    expected, _ = theirs(
        ImageList(torch.zeros(2, 3, *SIZE), sizes), features, [{"boxes": boxes} for boxes in mine.boxes]
    )
    for own, other in zip(proposals, expected):
        torch.testing.assert_close(own, other)
        assert len(own) == (40 if training else 30)
    if not training:
        assert losses == {}
        return
    for i in range(2):  # torchvision has one generator for both images
        one = replace(targets(2), boxes=mine.boxes[i : i + 1], groups=torch.zeros(1), generators=[generator(i)])
        own = ours([level[i : i + 1] for level in maps], [SIZE], one)[1]
        torch.manual_seed(i)
        _, other = theirs(
            ImageList(torch.zeros(1, 3, *SIZE), [SIZE]),
            OrderedDict((str(k), level[i : i + 1]) for k, level in enumerate(maps)),
            [{"boxes": mine.boxes[i]}],
        )
        torch.testing.assert_close(own["objectness"], other["loss_objectness"])
        torch.testing.assert_close(own["proposals"], other["loss_rpn_box_reg"])


def test_one_stage_of_regions_learns_and_finds_what_torchvisions_does(monkeypatch):
    """But for the loss of boxes, which is smooth there, and the targets of masks, which are not cut at 0.5 there."""
    ours = RegionHeads(STRIDES, CLASSES, options("mask_rcnn", stages=(BoxStage(),)), masks=True)
    randomise(ours)
    theirs = torchvisions(ours)
    monkeypatch.setattr(our_regions, "offset_loss", partial(offset_loss, beta=1 / 9))
    monkeypatch.setattr(
        torchvision_roi_heads, "project_masks_on_boxes",
        lambda masks, boxes, matches, cells: mask_targets(masks, matches, boxes, cells),
    )  # fmt: skip
    maps = [torch.randn(1, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    features = OrderedDict((str(i), level) for i, level in enumerate(maps))
    mine, proposals = targets(1), regions_near(BOXES[0], 60)
    losses = ours.losses(maps, [proposals], [SIZE], mine)
    torch.manual_seed(0)  # that of the generator
    objects = {"boxes": mine.boxes[0], "labels": mine.classes[0] + 1, "masks": mine.masks[0]}
    _, expected = theirs(features, [proposals], [SIZE], [objects])
    assert losses.keys() == {"classes", "boxes", "masks"}
    torch.testing.assert_close(losses["classes"], expected["loss_classifier"])
    torch.testing.assert_close(losses["boxes"], expected["loss_box_reg"])
    torch.testing.assert_close(losses["masks"], expected["loss_mask"])

    ours.eval(), theirs.eval()
    with torch.no_grad():
        (found,) = ours.detect(maps, [proposals], [SIZE])
        (other,), _ = theirs(features, [proposals], [SIZE])
    assert len(found.boxes) > 20
    torch.testing.assert_close(found.boxes, other["boxes"])
    torch.testing.assert_close(found.scores, other["scores"])
    assert torch.equal(found.classes, other["labels"] - 1)
    torch.testing.assert_close(found.probabilities, other["masks"][:, 0])


def test_in_mask_rcnn_the_best_region_of_an_object_is_its_own_though_it_overlaps_another_more(monkeypatch):
    """The objects' own boxes are added afterwards, or none of the proposals would ever be the best."""
    large, small = torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 60]])
    between = torch.tensor([[0.0, 0, 100, 85], [0, 0, 100, 20]])  # IoU 0.85 and 0.71; 0.2 and 0.33
    own = replace(targets(1), boxes=[torch.stack([large, small])], classes=[torch.tensor([2, 1])])
    monkeypatch.setattr(our_regions, "sample", lambda matches, *_: (torch.arange(len(matches)), matches[:0]))
    found = {}
    for head in ("faster_rcnn", "mask_rcnn", "cascade_mask_rcnn"):
        heads = RegionHeads(STRIDES, CLASSES, options(head), masks=False)
        found[head] = heads._sample(between, 0, heads.stages[0], own).matches.tolist()
    assert found["faster_rcnn"] == found["cascade_mask_rcnn"] == [0, NEGATIVE, 0, 1]
    assert found["mask_rcnn"] == [1, NEGATIVE, 0, 1]


def test_a_cascade_of_one_stage_is_mask_rcnn():
    """Of the networks of Mask R-CNN, since one stage has these."""
    published = PUBLISHED["mask_rcnn"]
    one = options("cascade_mask_rcnn", stages=published.stages, box_loss="l1", box_weight=1.0)
    ours, other = (RegionHeads(STRIDES, CLASSES, each, masks=True) for each in (options("mask_rcnn"), one))
    randomise(ours)
    other.load_state_dict(ours.state_dict())
    maps = [torch.randn(2, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    proposals = [regions_near(boxes, 40) for boxes in BOXES[:2]]
    first, second = (each.losses(maps, proposals, [SIZE] * 2, targets(2)) for each in (ours, other))
    assert first == second and first.keys() == second.keys()


def test_a_cascade_finds_what_its_stages_written_out_find():
    """Each stage begins with the boxes of the likeliest class of the one before; logits and masks are averaged."""
    heads = RegionHeads(STRIDES, CLASSES, options("cascade_mask_rcnn", score_threshold=0.02), masks=True)
    randomise(heads)
    heads.eval()
    maps = [torch.randn(1, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    boxes, total = regions_near(BOXES[0], 30), torch.zeros(30, CLASSES + 1)
    with torch.no_grad():
        (found,) = heads.detect(maps, [boxes], [SIZE])
        for k, scales in enumerate(((10.0, 5.0), (20.0, 10.0), (1 / 0.033, 1 / 0.067))):
            logits, offsets = heads.boxes[k](heads.pool(maps, [boxes]))
            total += logits
            offsets = offsets / torch.tensor(scales).repeat_interleave(2)
            centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            moved = centre[:, None] + offsets[..., :2] * size[:, None]
            half = offsets[..., 2:].clamp(max=torch.tensor(1000 / 16).log()).exp() * size[:, None] / 2
            moved = torch.cat([moved - half, moved + half], -1)
            boxes = clip_boxes_to_image(moved[range(30), logits[:, :CLASSES].argmax(1)], SIZE)
        scores = (total / 3).softmax(1)
        pooled = heads.mask_pool(maps, [found.boxes])
        masks = sum(mask(pooled).sigmoid() for mask in heads.masks) / 3
    moved = clip_boxes_to_image(moved, SIZE)
    assert len(found.boxes) > 10
    for box, score, number in zip(found.boxes, found.scores, found.classes):
        place = (scores[:, number] - score).abs().argmin()
        torch.testing.assert_close(scores[place, number], score)
        torch.testing.assert_close(moved[place, number], box)
    torch.testing.assert_close(found.probabilities, masks[range(len(found.boxes)), found.classes])


def test_a_cascade_learns_as_its_stages_written_out(monkeypatch):
    """The next stage begins with the boxes of the assigned class and has the objects' own boxes once."""
    heads = RegionHeads(STRIDES, CLASSES, options("cascade_mask_rcnn", rois_per_image=10**6), masks=True)
    randomise(heads)
    maps = [torch.randn(1, WIDTH, SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    mine, boxes = targets(1), regions_near(BOXES[0], 30)
    losses = heads.losses(maps, [boxes], [SIZE], mine)
    objects, classes = mine.boxes[0], mine.classes[0]
    for k, (overlap, weight) in enumerate(((0.5, 1), (0.6, 0.5), (0.7, 0.25))):
        boxes = torch.cat([boxes, objects])
        highest, own = box_iou(boxes, objects).max(1)
        labels = torch.where(highest >= overlap, classes[own], CLASSES)
        positive = torch.where(labels < CLASSES)[0]
        logits, offsets = heads.boxes[k](heads.pool(maps, [boxes]))
        assert 2 < len(positive) < len(boxes)
        expected = weight * F.cross_entropy(logits, labels)
        torch.testing.assert_close(losses[f"classes_{k + 1}"], expected)
        chosen = torch.where(labels < CLASSES, labels, logits[:, :CLASSES].argmax(1))
        moved = heads.coders[k].decode_single(offsets[range(len(boxes)), chosen], boxes)
        overlapping = generalized_box_iou_loss(moved[positive], objects[own[positive]], reduction="sum")
        torch.testing.assert_close(losses[f"boxes_{k + 1}"], weight * 10 * overlapping / len(boxes))
        masks = heads.masks[k](heads.mask_pool(maps, [boxes[positive]]))[range(len(positive)), labels[positive]]
        wanted = mask_targets(mine.masks[0], own[positive], boxes[positive], 28)
        expected = weight * F.binary_cross_entropy_with_logits(masks, wanted)
        torch.testing.assert_close(losses[f"masks_{k + 1}"], expected)
        boxes = clip_boxes_to_image(moved[:-2].detach(), SIZE)
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)]


@pytest.mark.parametrize("head", ["faster_rcnn", "mask_rcnn", "cascade_mask_rcnn"])
def test_heads_learn_nothing_where_there_is_no_region(head):
    heads = RegionHeads(STRIDES, CLASSES, options(head), masks=head != "faster_rcnn")
    maps = [torch.randn(2, WIDTH, 8, 8, requires_grad=True) for _ in STRIDES]
    losses = heads.losses(maps, [torch.zeros(0, 4)] * 2, [SIZE] * 2, targets(2, objects=False))
    sum(losses.values()).backward()
    assert all(loss == 0 for loss in losses.values())
    assert all(p.grad is not None and not p.grad.any() for p in (*heads.parameters(), *maps))
    assert all(buffer.isfinite().all() for buffer in heads.buffers())


def test_regions_are_read_from_the_level_of_their_size():
    """A level holds its own number; 112 px is the first size of the second level."""
    pool = RegionPooling(2, STRIDES)
    maps = [torch.full((2, 1, 512 // stride, 512 // stride), float(i)) for i, stride in enumerate(STRIDES)]
    sides = torch.tensor([500.0, 20, 111, 112, 223, 300, 447, 449])
    boxes = torch.cat([torch.zeros(8, 2), sides[:, None].repeat(1, 2)], 1)
    pooled = pool(maps, [boxes[:3], boxes[3:]])
    assert pooled.shape == (8, 1, 2, 2) and pooled.flatten(1).std(1).eq(0).all()
    assert pooled[:, 0, 0, 0].tolist() == [3, 0, 0, 1, 1, 2, 2, 3]


def test_regions_are_aligned_with_the_image():
    """Of a map that says where its cells are, a region of 4 x 4 cells has the middles of its own quarters."""
    place = (torch.arange(32.0) + 0.5) * 4
    level = torch.stack(torch.meshgrid(place, place, indexing="xy"))[None]
    pooled = RegionPooling(2, (4,))([level], [torch.tensor([[20.0, 36, 36, 52]])])
    torch.testing.assert_close(pooled[0, :, 0], torch.tensor([[24.0, 32], [40, 40]]))


def test_the_neck_goes_on_above_the_coarsest_map():
    maps = [torch.randn(1, channels, side, side) for channels, side in ((3, 14), (6, 7))]
    neck = DetectionFPN((3, 6), 4, subsampled=True)
    levels = neck(maps)
    assert [level.shape[-1] for level in levels] == [14, 7, 4]
    assert torch.equal(levels[2], F.max_pool2d(levels[1], 1, stride=2))
    neck = DetectionFPN((3, 6), 4, convolved=2)
    levels = neck(maps)
    sixth = F.conv2d(maps[1], neck.extra[0].weight, neck.extra[0].bias, stride=2, padding=1)
    seventh = F.conv2d(sixth, neck.extra[1].weight, neck.extra[1].bias, stride=2, padding=1)
    assert (sixth < 0).any() and len(levels) == 4
    torch.testing.assert_close(levels[2:], [sixth, seventh])


def test_heads_begin_as_published():
    wide = options("cascade_mask_rcnn", width=64, fc_width=256)
    regions = RegionHeads(STRIDES, 80, wide, masks=True)
    for network in (BoxNetwork(64, 256, 80), *regions.boxes):
        assert network.scores.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert network.offsets.weight.std().item() == pytest.approx(0.001, rel=0.05)
        shared = [layer for layer in network.layers.modules() if isinstance(layer, nn.Linear)]
        for layer in shared:
            bound = (6 / sum(layer.weight.shape)) ** 0.5
            assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert_zero_biases(network)
    for mask in (MaskNetwork(64, 80), *regions.masks):
        for layer in mask.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                kernel = layer.weight.shape[0] * layer.weight[0, 0].numel()
                assert layer.weight.std().item() == pytest.approx((2 / kernel) ** 0.5, rel=0.05)
        assert_zero_biases(mask)
    neck = DetectionFPN((64, 128), 64, convolved=2)
    for layer in neck.extra:
        bound = (6 / (sum(layer.weight.shape[:2]) * 9)) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert_zero_biases(neck)
    dense = DenseHead((8,), 80, options("retinanet", width=64)).head
    assert torch.allclose(dense.classification_head.cls_logits.bias.sigmoid(), torch.tensor(0.01))
    for width, expected in ((64, {0.01, 0.02}), (256, {0.01})):  # towers as if each layer were as wide as published
        dense = DenseHead((8,), 80, options("retinanet", width=width)).head
        spread = {name: round(p.std().item(), 2) for name, p in dense.named_parameters() if name.endswith("weight")}
        assert set(spread.values()) == expected
        assert {spread[name] for name in spread if ".conv." not in name} == {0.01}
    proposals = ProposalNetwork((4,), wide)
    assert {round(p.std().item(), 2) for n, p in proposals.named_parameters() if n.endswith("weight")} == {0.01}


def backbone() -> nn.Module:
    return dense_backbone(Model("nano"), STRIDES)


def options(head: str, **changes):
    return replace(PUBLISHED[head], **{**SMALL, **changes})


def detector(head: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    return build_detector(backbone(), head, CLASSES, options(head, **changes))


def images(number: int) -> tuple[Tensor, Tensor]:
    return torch.randn(number, 3, *SIZE, generator=generator(1)), torch.tensor([SIZE, (90, 110), SIZE, (96, 120)])[
        :number
    ]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def targets(number: int, seed: int = 0, objects: bool = True) -> Targets:
    return of_images(range(number), [0] * number, seed, objects)


def of_images(chosen, groups, seed: int = 0, objects: bool = True) -> Targets:
    """Of the places of BOXES; masks are ellipses in them."""
    boxes = [torch.tensor(BOXES[i]) if objects else torch.zeros(0, 4) for i in chosen]
    y, x = torch.meshgrid(*(torch.arange(length) + 0.5 for length in SIZE), indexing="ij")
    masks = []
    for each in boxes:
        (cx, cy), (w, h) = (
            ((each[:, :2] + each[:, 2:]) / 2).T[..., None, None],
            (each[:, 2:] - each[:, :2]).T[..., None, None],
        )
        masks.append((((x - cx) * 2 / w) ** 2 + ((y - cy) * 2 / h) ** 2 < 1).to(torch.uint8))
    classes = [torch.arange(len(each)) + i for i, each in zip(chosen, boxes)]
    classes = [each % CLASSES for each in classes]
    return Targets(boxes, classes, masks, torch.tensor(groups), [generator(100 * seed + i) for i in chosen])


def gradients(model: nn.Module, chosen, groups) -> dict[str, Tensor]:
    """Losses and gradients, by name."""
    pixels, sizes = images(4)
    chosen = list(chosen)
    model.zero_grad()
    losses = model(pixels[chosen], sizes[chosen], of_images(chosen, groups))
    sum(losses.values()).backward()
    return {**{n: p.grad for n, p in model.named_parameters()}, **{n: loss.detach() for n, loss in losses.items()}}


def regions_near(boxes, number: int) -> Tensor:
    """Boxes moved by up to a third of their size, in turn."""
    near = torch.tensor(boxes).repeat(number // len(boxes) + 1, 1)[:number]
    size = (near[:, 2:] - near[:, :2]).repeat(1, 2)
    return clip_boxes_to_image(near + (torch.rand(number, 4) - 0.5) * size * 0.6, SIZE)


def randomise(module: nn.Module) -> None:
    """Weights at which outputs vary by about 1, so that there are equal scores nowhere."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            last = name.endswith(("offsets.weight", "bbox_pred.weight", "bbox_reg.weight"))
            nn.init.normal_(parameter, std=(0.3 if last else 1.0) / parameter[0].numel() ** 0.5)


def spread(model: nn.Module) -> nn.Module:
    for part in ("head", "proposals", "regions"):
        if hasattr(model, part):
            randomise(getattr(model, part))
    return model


def assert_same(one: RawDetections, other: RawDetections, exactly: bool = True) -> None:
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-4, "atol": 1e-4}
    for name in ("boxes", "scores", "classes", "probabilities"):
        if getattr(one, name) is not None or getattr(other, name) is not None:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), **tolerance)


def assert_zero_biases(module: nn.Module) -> None:
    biases = [p for name, p in module.named_parameters() if name.endswith("bias")]
    assert biases and not any(p.any() for p in biases)


def torchvisions(ours: RegionHeads) -> RoIHeads:
    """torchvision's heads with the networks of ours, the background first and with an offset of its own."""

    class Pool(nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.pool = pool

        def forward(self, features, boxes, shapes):
            return self.pool(list(features.values()), boxes)

    class Predictor(nn.Module):
        def forward(self, features):
            scores, offsets = ours.boxes[0].scores(features), ours.boxes[0].offsets(features)
            return scores.roll(1, dims=1), F.pad(offsets, (4, 0))

    class Masks(nn.Module):
        def forward(self, features):
            return F.pad(ours.masks[0](features), (0, 0, 0, 0, 1, 0))

    return RoIHeads(
        Pool(ours.pool), ours.boxes[0].layers, Predictor(), 0.5, 0.5, 24, 0.25, None, 0.0, 0.5, 100,
        Pool(ours.mask_pool), nn.Identity(), Masks(),
    )  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_maps_of_one_row_or_column_have_the_same_gradients_every_time_in_bfloat16(size):
    torch.manual_seed(0)
    neck = DetectionFPN((8, 16), 16, convolved=2)
    maps = [torch.randn(2, 8, 2 * size[0], 2 * size[1]), torch.randn(2, 16, *size)]
    gradients = []
    for _ in range(4):
        freed = [torch.full((1 << 12 << i,), math.nan) for i in range(8)]  # shows what is read and was not written
        del freed
        neck.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            levels = neck(maps)
        sum(level.float().square().sum() for level in levels).backward()
        gradients.append([parameter.grad.clone() for parameter in neck.parameters()])
    for again in gradients:
        assert all(each.isfinite().all() and torch.equal(each, first) for each, first in zip(again, gradients[0]))
