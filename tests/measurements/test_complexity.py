"""Parameters and FLOPs of any timm model, counted from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from measurements import complexity
from reports.content import complexity as table
from run import main


def test_a_foreign_backbone_is_counted(capsys):
    assert main(["complexity=timm/resnet10t", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["label"], row["size"], row["published"]) == ("timm/resnet10t", 224, [])
    assert row["params_m"] == pytest.approx(5.435488) and row["flops_g"] == pytest.approx(1.102151, abs=1e-6)
    assert main(["complexity=timm/resnet10t"]) == 0
    out = capsys.readouterr().out
    assert "timm/resnet10t" in out and "5.435" in out and "1.102" in out


def test_a_model_of_one_image_size_is_counted_at_it():
    assert complexity.image_size("vit_base_patch16_384") == 384
    assert complexity.image_size("resnet10t") == complexity.image_size("atmnet_t") == 224


@pytest.mark.parametrize(("name", "nearest"), [("timm/resnet10", "'timm/resnet10t'"), ("tt", "'t'")])
def test_an_unknown_model_is_refused_with_the_nearest(name, nearest, capsys):
    assert main([f"complexity={name}"]) == 2
    err = capsys.readouterr().err
    assert nearest in err and len(err.splitlines()) == 1


def test_any_module_is_counted_on_its_own_arguments():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(10, 20)

        def forward(self, first, second):
            return self.linear(first) + self.linear(second)

    inputs = tuple(torch.empty(1, 10, device="meta") for _ in range(2))
    assert complexity.count(Sum(), inputs) == (220 / 1e6, 2 * 200 / 1e9)


def test_a_dense_model_is_printed_beside_the_papers(capsys):
    assert main(["complexity=resnet50c", "--json"]) == 0
    row, with_mixers = json.loads(capsys.readouterr().out)["rows"]
    assert (row["label"], row["head"], row["size"]) == ("ResNet-50, Semantic FPN", "Semantic FPN", 512)
    assert (round(row["params_m"], 3), round(row["flops_g"], 3)) == (28.515, 45.894)
    assert [(each["printed"], each["agrees"]) for each in row["published"]] == [
        ("45.9", True), ("28.5", True), ("46", True),
    ]  # fmt: skip
    assert (with_mixers["kwargs"], round(with_mixers["flops_g"], 3)) == ({"neck_offsets": "axial"}, 55.914)
    assert [(each["printed"], each["agrees"]) for each in with_mixers["published"]] == [("48.9", False)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "expected"),
    [("RetinaNet", {"xt": (25.087, 196.01), "t": (36.890, 232.57), "s": (48.369, 292.58), "b": (61.893, 358.59),
                    "l": (86.408, 404.78)}),
     ("Mask R-CNN", {"xt": (35.005, 214.58), "t": (46.808, 251.14), "s": (58.287, 311.15), "b": (71.810, 377.16),
                     "l": (95.744, 423.73)}),
     ("Cascade Mask R-CNN", {"xt": (72.840, 693.14), "t": (84.643, 729.69), "s": (96.122, 789.70),
                             "b": (109.645, 855.71), "l": (133.579, 902.28)})],
)  # fmt: skip
def test_detectors_have_the_papers_counts(head, expected):
    counted = {name: complexity.count_network(f"atmnet_{name}", {}, head, (800, 1280)) for name in expected}
    assert {name: round(params, 3) for name, (params, _) in counted.items()} == {
        name: params for name, (params, _) in expected.items()
    }
    assert [flops for _, flops in counted.values()] == pytest.approx([g for _, g in expected.values()], abs=0.006)


def test_every_head_of_the_table_can_be_counted():
    assert set(complexity.HEADS) == {head for heads in table.TASKS.values() for head in heads}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "segmenter", "detector"),
    [("resnet50", (44.634, 54.654), (259.791, 298.931)), ("resnet50c", (45.894, 55.914), (264.715, 303.854)),
     ("swin_tiny_patch4_window7_224", (47.520, 47.548), (267.009, 267.117)),
     ("atmnet_t", (42.420, 41.365), (251.137, 247.015)), ("atmnet_l", (86.605, 86.633), (423.725, 423.834))],
)  # fmt: skip
def test_necks_have_the_papers_flops(name, segmenter, detector):
    """FPN and ATMFPN, in G. AAAI Table 7 has ResNet-50's deep stem with Semantic FPN, the plain one with Mask R-CNN."""
    for head, size, expected in (("Semantic FPN", (512, 512), segmenter), ("Mask R-CNN", (800, 1280), detector)):
        necks = ({}, {"neck_offsets": "axial"})
        counted = [complexity.count_network(name, neck, head, size)[1] for neck in necks]
        assert counted == pytest.approx(expected, abs=0.0006)


def test_an_arm_with_a_head_is_the_arm():
    """PEG: 3 x 3 weights and a bias per channel of xT's four stages."""
    size = (64, 64)
    with_peg, without = (
        complexity.count_network("atmnet_xt", {"peg": peg}, "Semantic FPN", size)[0] for peg in (True, False)
    )
    assert round(1e6 * (with_peg - without)) == 10 * (64 + 128 + 320 + 512)
