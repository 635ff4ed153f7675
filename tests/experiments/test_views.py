"""Testing whole, in windows, at several scales and mirrored gives what explicit loops over views give."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from errors import ConfigError
from experiments.data.mask_transforms import fitted, resize
from experiments.tasks import views
from experiments.tasks.views import predict_classes, predict_probabilities, starts, view_logits

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}  # the model sees grey levels
AS_IT_IS = views.TestPlan(scale=None, **PLAIN)


def plan(**settings) -> views.TestPlan:
    return views.TestPlan(**{"scale": None, **PLAIN, **settings})


class Positions(nn.Module):
    """Logits that depend on a pixel, on the mean of what the model sees, and on where in it the pixel lies."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        place = torch.arange(images.shape[3], dtype=images.dtype).expand(images.shape[0], *images.shape[2:])
        red, green = images[:, 0] / 100, images[:, 1].mean((1, 2), keepdim=True).expand_as(place) / 100
        return torch.stack([red, green, place / 10], dim=1)


class Halved(Positions):
    """The same at half the resolution, as heads give it."""

    def forward(self, images):
        return F.avg_pool2d(super().forward(images), 2)


def picture(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize(("size", "box", "expected"), [
    ((683, 512), (2048, 512), (683, 512)),
    ((256, 256), (2048, 512), (512, 512)),
    ((300, 453), (2048, 512), (512, 773)),  # 453 · 512 / 300 = 773.12
    ((453, 300), (2048, 512), (773, 512)),
    ((100, 1000), (2048, 512), (205, 2048)),  # the longer side decides: 204.8 rounds to 205
    ((333, 500), (1024, 256), (256, 384)),  # 384.38
    ((200, 301), (100, 100), (66, 100)),  # 66.445
    ((5, 8), (4, 4), (3, 4)),  # 2.5 rounds up, where Python's round gives 2
])  # fmt: skip
def test_sizes_are_those_of_mmcv(size, box, expected):
    assert fitted(size, box) == expected


def test_a_view_is_stretched_to_multiples_after_it_was_scaled():
    sizes = list(views.TestPlan(multiple_of=32, ratios=(1.0, 0.5)).sizes(300, 453))
    assert sizes == [[(512, 773), (512, 800)], [(256, 387), (256, 416)]]
    assert list(views.TestPlan().sizes(300, 453)) == [[(512, 773), (512, 773)]]


@pytest.mark.parametrize(
    ("ratio", "multiple", "steps"),
    [(1.0, 1, [(512, 683)]), (1.0, 32, [(512, 683), (512, 704)]), (0.5, 32, [(256, 341), (256, 352)]),
     (1.75, 1, [(896, 1195)])],
)  # fmt: skip
def test_test_images_are_resized_and_then_rounded_up_to_multiples(ratio, multiple, steps):
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 300, 400), np.uint8))
    expected = image
    for size in steps:
        expected = resize(expected, size)
    (sizes,) = views.TestPlan(multiple_of=multiple, ratios=(ratio,)).sizes(300, 400)
    result = views.resized(image, sizes)
    assert result.dtype == torch.uint8 and torch.equal(result, expected) and result.shape[1:] == steps[-1]


def test_boxes_of_other_scales_are_whole_numbers():
    """mmsegmentation scales the box, cut to whole numbers, and not the image."""
    assert list(views.TestPlan(scale=(2048, 511), ratios=(0.5,)).sizes(100, 100)) == [[(255, 255)] * 2]


def test_an_image_is_seen_whole_and_normalised():
    model = Positions()
    image = picture(6, 9)
    predict_probabilities(model, image, views.TestPlan(scale=None))
    (seen,) = model.seen
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (image.numpy().transpose(1, 2, 0) / 255 - mean) / std
    np.testing.assert_allclose(seen[0].permute(1, 2, 0).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_scaled_image_is_interpolated_between_pixels_and_rounded():
    model = Positions()
    image = torch.tensor([[0, 100, 31]], dtype=torch.uint8).expand(3, 1, 3)
    predict_probabilities(model, image, plan(scale=(6, 2)))
    (seen,) = model.seen
    assert seen[0, 0].tolist() == [pytest.approx([0, 25, 75, 83, 48, 31])] * 2  # 82.75 and 48.25


@pytest.mark.parametrize("model", [Positions(), Halved()])
@pytest.mark.parametrize("size", [(12, 20), (7, 31)])
def test_probabilities_have_the_size_of_the_image(model, size):
    probabilities = predict_probabilities(model, picture(*size), plan(scale=(32, 16), flip=True, ratios=(0.5, 1.0)))
    assert probabilities.shape == (3, *size) and probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(0), torch.ones(size))


def test_logits_are_enlarged_before_the_softmax():
    image = picture(8, 12)
    logits = Halved()(image[None].float())
    expected = F.interpolate(logits, (8, 12), mode="bilinear", align_corners=False).softmax(1)[0]
    torch.testing.assert_close(predict_probabilities(Halved(), image, AS_IT_IS), expected)


def test_where_windows_begin():
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7], "the last one is moved back"
    assert starts(4, 4, 3) == starts(2, 4, 3) == [0]
    assert starts(683, 512, 341) == [0, 171]
    for side, window, stride in [(s, w, d) for s in range(1, 30) for w in range(1, 9) for d in range(1, w + 1)]:
        grids = max(side - window + stride - 1, 0) // stride + 1  # as mmsegmentation counts them
        ends = [min(place * stride + window, side) for place in range(grids)]
        assert starts(side, window, stride) == [max(end - window, 0) for end in ends]


def test_windows_are_averaged_by_how_many_cover_a_pixel():
    """One row of seven pixels; windows of four begin at 0, 2 and 3. The second class is the mean of a window."""
    green = torch.tensor([0, 100, 200, 300, 400, 500, 600.0])
    view = torch.zeros(1, 3, 1, 7)
    view[0, 1, 0] = green
    logits = view_logits(Positions(), view, plan(window=4, stride=2))[0, :, 0]
    means = {0: 1.5, 2: 3.5, 3: 4.5}
    covered = [[0], [0], [0, 2], [0, 2, 3], [2, 3], [2, 3], [3]]
    assert logits[1].tolist() == pytest.approx([sum(means[w] for w in by) / len(by) for by in covered])
    places = [sum(x - w for w in by) / len(by) / 10 for x, by in enumerate(covered)]
    assert logits[2].tolist() == pytest.approx(places)


def test_windows_of_both_directions_equal_a_loop():
    view = torch.from_numpy(np.random.default_rng(4).normal(size=(1, 3, 11, 14)).astype(np.float32))
    total, count = np.zeros((3, 11, 14)), np.zeros((11, 14))
    for top in (0, 4, 5):
        for left in (0, 4, 8):
            total[:, top : top + 6, left : left + 6] += (
                Halved()(view[:, :, top : top + 6, left : left + 6])[0]
                .repeat_interleave(2, 1)
                .repeat_interleave(2, 2)
                .numpy()
            )
            count[top : top + 6, left : left + 6] += 1

    class Nearest(Halved):
        def forward(self, images):
            return super().forward(images).repeat_interleave(2, 2).repeat_interleave(2, 3)

    found = view_logits(Nearest(), view, plan(window=6, stride=4))
    np.testing.assert_allclose(found[0].numpy(), total / count, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [Positions, Halved])
def test_a_window_that_covers_the_image_is_the_whole_image(model):
    image = picture(10, 8)
    whole = predict_probabilities(model(), image, plan(flip=True))
    for window in (10, 16):
        assert torch.equal(predict_probabilities(model(), image, plan(flip=True, window=window, stride=3)), whole)


def test_flips_are_undone():
    """The left of a mirrored view is the right of the image: only the class that tells the place changes sides."""
    image = picture(4, 5)
    shown, mirrored = Positions()(image[None].float()), Positions()(image.flip(2)[None].float())
    expected = (shown.softmax(1) + mirrored.softmax(1).flip(3)) / 2
    torch.testing.assert_close(predict_probabilities(Positions(), image, plan(flip=True)), expected[0])

    class Red(nn.Module):
        def forward(self, images):
            return images[:, :2] / 50

    plain = predict_probabilities(Red(), image, AS_IT_IS)
    torch.testing.assert_close(predict_probabilities(Red(), image, plan(flip=True)), plain)


def test_several_scales_are_the_mean_of_each_alone():
    image = picture(20, 26)
    ratios = (0.5, 0.75, 1.25)
    loop = sum(
        predict_probabilities(Halved(), image, plan(scale=(64, 32), ratios=(ratio,), flip=True, window=16, stride=10))
        for ratio in ratios
    )
    together = plan(scale=(64, 32), ratios=ratios, flip=True, window=16, stride=10)
    torch.testing.assert_close(predict_probabilities(Halved(), image, together), loop / 3)
    model = Halved()
    predict_probabilities(model, image, plan(scale=(64, 32), ratios=ratios, flip=True))
    assert [tuple(seen.shape[2:]) for seen in model.seen] == [(16, 21)] * 2 + [(24, 31)] * 2 + [(40, 52)] * 2


def test_images_are_predicted_one_by_one_at_their_own_size():
    model = Positions()
    images = (picture(6, 8), picture(9, 5, seed=1))
    classes = predict_classes(model, images, AS_IT_IS)
    assert [tuple(seen.shape) for seen in model.seen] == [(1, 3, 6, 8), (1, 3, 9, 5)]
    for image, found in zip(images, classes):
        assert found.dtype == torch.int64
        assert torch.equal(found, Positions()(image[None].float())[0].argmax(0))


@pytest.mark.parametrize(("settings", "message"), [
    ({"ratios": ()}, "at least one"),
    ({"ratios": (1.0, 0.0)}, "each above 0"),
    ({"window": 512}, "both a side and a stride"),
    ({"stride": 341}, "both a side and a stride"),
    ({"window": 512, "stride": 513}, "513 px; valid are 1 to 512"),
    ({"window": 512, "stride": 0}, "0 px; valid are 1 to 512"),
])  # fmt: skip
def test_plans_that_leave_pixels_out_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        plan(**settings)
