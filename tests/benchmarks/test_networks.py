"""Whole networks are compared as their reports state, at sizes small enough for a test."""

import pytest
import torch

from atm.complexity import count
from benchmarks import deformable, detection
from benchmarks.networks import Step, autocast, build, build_detector, build_segmenter, random_batch
from tests.benchmarks.tables import lines

CPU = torch.device("cpu")
NETWORKS = ("--models", "atmnet_nano,atmnet_nano_deform,resnet10t", "--threads", "1", "--batch", "2", "--image", "64")
TWO = ("--models", "atmnet_nano,atmnet_nano_deform", *NETWORKS[2:])


@pytest.mark.parametrize("words", [(), ("--channels-last", "--dtype", "bfloat16")], ids=["plain", "bfloat16"])
def test_model_measures_both_phases_of_every_network_and_a_matrix_product(run, words) -> None:
    report, printed = run("model", *NETWORKS, *words)
    rows = report["rows"]
    names = ["atmnet_nano", "atmnet_nano_deform", "resnet10t", "matrix product"]
    assert [(row["network"], row["phase"]) for row in rows] == [
        (name, phase) for phase in ("inference", "training step") for name in names
    ]
    macs = count(build("atmnet_nano", 64, CPU).module, (3, 64, 64)).flops / 1e9
    assert report["gmac"]["atmnet_nano"] == report["gmac"]["atmnet_nano_deform"] == macs
    for part, passes in ((rows[:4], 1), (rows[4:], 3)):
        first, product = part[0], part[-1]
        for row in part[:-1]:
            assert row["images_s"] == pytest.approx(2 / row["median_s"])
            assert row["gmac_s"] == pytest.approx(passes * report["gmac"][row["network"]] * row["images_s"])
            assert row["share"] == pytest.approx(row["gmac_s"] / product["gmac_s"])
            assert row["ratio"] == pytest.approx(first["median_s"] / row["median_s"])
    for row, cells in zip(rows, lines(printed), strict=True):
        assert (cells[0], cells[3], cells[4]) == (row["network"], row["phase"], f"{row['median_s']:.4f}")
        assert cells[5] == (f"{row['images_s']:.1f}" if row["images_s"] else "")


def test_refuses_to_time_networks_that_disagree(refused, monkeypatch) -> None:
    right = deformable.deformed_fc
    monkeypatch.setattr(deformable, "deformed_fc", lambda x, dy, dx, weight, bias: right(x, dy, dx, 2 * weight, bias))
    assert "atmnet_nano_deform and atmnet_nano disagree" in refused("model", *TWO, code=1)


@pytest.mark.slow
def test_memory_measures_each_network(run) -> None:
    report, printed = run("memory", *TWO)
    assert [row["network"] for row in report["rows"]] == ["atmnet_nano", "atmnet_nano_deform"]
    parameters = 3 * 4 * build("atmnet_nano", 64, CPU).params / 2**20  # and two moments
    for row, cells in zip(report["rows"], lines(printed), strict=True):
        assert row["peak_mib"] > row["state_mib"] >= parameters
        assert row["step_mib"] == pytest.approx(row["peak_mib"] - row["state_mib"])
        assert row["ratio"] == pytest.approx(report["rows"][0]["peak_mib"] / row["peak_mib"])
        assert cells[:4] == [row["network"], *(f"{row[key]:.0f}" for key in ("peak_mib", "state_mib", "step_mib"))]


@pytest.mark.parametrize("words", [(), ("--training",)], ids=["inference", "training"])
def test_resolution_keeps_the_pixels_and_compares_time_per_pixel(run, words) -> None:
    report, printed = run("resolution", "--model", "atmnet_nano", "--sizes", "32,48,96", "--threads", "1", *words)
    rows = report["rows"]
    assert [(row["image"], row["batch"]) for row in rows] == [(32, 9), (48, 4), (96, 1)]
    for row, cells in zip(rows, lines(printed), strict=True):
        assert row["ns_per_pixel"] == pytest.approx(1e9 * row["median_s"] / (row["batch"] * row["image"] ** 2))
        assert row["ratio"] == pytest.approx(row["ns_per_pixel"] / rows[0]["ns_per_pixel"])
        assert cells[3:5] == [f"{row['ns_per_pixel']:.2f}", f"{row['ratio']:.3f}"]
    assert report["training"] is bool(words)


def test_resolution_times_segmentation_networks_in_inference(run, refused) -> None:
    words = ("resolution", "--model", "atmnet_nano", "--head", "semantic_fpn", "--sizes", "32,64", "--threads", "1")
    report, printed = run(*words)
    assert report["head"] == "semantic_fpn" and "atmnet_nano with semantic_fpn" in printed
    assert [(row["image"], row["batch"]) for row in report["rows"]] == [(32, 4), (64, 1)]
    assert "--training" in refused(*words, "--training")


@pytest.mark.slow
def test_segmentation_measures_backbone_and_head_apart(run) -> None:
    words = ("--model", "atmnet_nano", "--heads", "semantic_fpn", "--image", "64", "--threads", "1")
    report, printed = run("segmentation", *words)
    rows = {row["part"]: row for row in report["rows"]}
    assert list(rows) == ["backbone", "head", "both"]
    both = count(build_segmenter("atmnet_nano", "semantic_fpn", CPU), (3, 64, 64)).flops / 1e9
    backbone = count(build_segmenter("atmnet_nano", None, CPU), (3, 64, 64)).flops / 1e9
    assert {part: row["gmacs"] for part, row in rows.items()} == {
        "backbone": backbone, "head": both - backbone, "both": both,
    }  # fmt: skip
    assert rows["head"]["peak_mib"] is None and rows["both"]["peak_mib"] > 0
    for row, cells in zip(rows.values(), lines(printed), strict=True):
        assert row["ratio"] == pytest.approx(row["median_s"] / rows["both"]["median_s"])
        assert cells[:5] == ["semantic_fpn", "64 x 64", row["part"], f"{row['median_s']:.4f}", f"{row['ratio']:.3f}"]


@pytest.mark.slow
def test_detection_measures_backbone_neck_and_heads_apart(run) -> None:
    words = ("--model", "atmnet_nano", "--heads", "faster_rcnn", "--image", "64", "--threads", "1")
    report, printed = run("detection", *words)
    rows = {row["part"]: row for row in report["rows"]}
    assert list(rows) == ["backbone", "neck", "heads", "all"]
    backbone = count(build_detector("atmnet_nano", None, CPU), (3, 64, 64)).flops / 1e9
    assert rows["backbone"]["gmacs"] == backbone
    assert rows["all"]["gmacs"] == count(build_detector("atmnet_nano", "faster_rcnn", CPU), (3, 64, 64)).flops / 1e9
    assert rows["all"]["gmacs"] == pytest.approx(sum(rows[part]["gmacs"] for part in ("backbone", "neck", "heads")))
    assert rows["neck"]["peak_mib"] is None and rows["heads"]["peak_mib"] is None
    assert rows["all"]["peak_mib"] > rows["backbone"]["peak_mib"] > 0
    for row, cells in zip(rows.values(), lines(printed), strict=True):
        assert row["ratio"] == pytest.approx(row["median_s"] / rows["all"]["median_s"])
        assert cells[:5] == ["faster_rcnn", "64 x 64", row["part"], f"{row['median_s']:.4f}", f"{row['ratio']:.3f}"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neck_and_heads_of_a_detector_have_the_count_of_their_convolutions(dtype) -> None:
    network = build_detector("atmnet_nano", "retinanet", CPU)
    with torch.no_grad(), autocast(CPU, dtype):
        parts = detection._split(network, torch.randn(1, 3, 64, 96))
        assert all(part.call() is None for name, part in parts.items() if name in ("heads", "all"))
    cells, channels, kernel = [8 * 12, 4 * 6, 2 * 3], [32, 64, 96], 9 * 256  # of the maps at strides 8, 16 and 32
    laterals = sum(256 * cell * channel for cell, channel in zip(cells, channels))
    upsampling = 256 * (cells[0] + cells[1])
    extra = 2 * 9 * 96 * 256 + 1 * kernel * 256  # P6 has 1 x 2 cells, P7 one
    assert 1e9 * parts["neck"].gmacs == pytest.approx(laterals + sum(cells) * kernel * 256 + upsampling + extra)
    towers, anchors = 2 * 4 * kernel * 256, 9
    predictions = kernel * anchors * (80 + 4)
    assert 1e9 * parts["heads"].gmacs == pytest.approx((sum(cells) + 2 + 1) * (towers + predictions))


def test_a_steps_state_is_three_numbers_per_parameter() -> None:
    network = build("atmnet_nano", 64, CPU)
    step = Step(network.module, *random_batch(2, 64, CPU))
    before = [parameter.clone() for parameter in network.module.parameters()]
    step()
    assert any(not torch.equal(old, new) for old, new in zip(before, network.module.parameters()))
    steps = 4 * len(before)  # AdamW counts steps for each tensor
    assert step.state_bytes() == 3 * 4 * network.params + steps


def test_a_network_has_the_same_weights_every_time() -> None:
    ours, peer = (build(name, 64, CPU).module.state_dict() for name in ("atmnet_nano", "atmnet_nano_deform"))
    assert ours.keys() == peer.keys() and all(torch.equal(ours[name], peer[name]) for name in ours)
