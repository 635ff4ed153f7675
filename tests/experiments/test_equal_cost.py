"""Formulas of parameters and FLOPs are the counts on the models, and arms are as wide as their cost allows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm

from atm.complexity import count
from atm.mixers import MIXERS, MixerOptions
from atm.token_mixers.attention import GlobalMixer, HaloMixer, WindowMixer
from atm.token_mixers.attention import heads_of as heads_of_model
from atm.token_mixers.deformable import DeformMixer
from errors import ConfigError
from experiments import model_costs
from experiments.config import ROOT, from_dict, read_variants, resolve
from experiments.equal_cost import TOLERANCE, frame_of
from experiments.identity import run_id
from experiments.model_completion import NEED_PEG
from experiments.model_costs import MIXER_COSTS, cost, heads_of, map_sizes
from experiments.tasks.network import backbone
from sweeps.plan import load

ARMS = [(mixer, peg) for mixer in MIXERS for peg in (True, False) if peg or mixer not in NEED_PEG]
OFFSETS: list[dict[str, Any]] = [
    {"model.offsets": "zero"}, {"model.offsets": "token"}, {"model.offsets": "joint", "model.offset_sharing": 1},
    {"model.samples": 3, "model.offset_sharing": 1}, {"model.offsets": "static"}, {"model.offsets": "shift"},
    {"model.offsets": "random"}, {"model.offsets": "frozen"}, {"model.fusion": "token"}, {"model.fusion": "mean"},
    {"model.offset_interval": "stage"}, {"model.offset_interval": 1}, {"model.mlp_ratios": [2, 3, 4, 1.5]},
    {"model.peg": "predictor"},
]  # fmt: skip


def config_of(settings: dict[str, Any], size: tuple[int, int] = (64, 64), recipe: str = "tiny_imagenet"):
    return resolve(recipe, {"data.num_classes": 10, "data.image_size": list(size), **settings})


def counted(config) -> tuple[int, int]:
    name, arguments = backbone(config.model, config.data.image_size)
    network = timm.create_model(name, num_classes=config.data.num_classes, **arguments)
    found = count(network, (3, *config.data.image_size))
    return found.params, found.flops


def by_formula(config) -> tuple[int, int]:
    variant = read_variants()[config.model.name]
    found = cost(frame_of(config, config.model, variant), config.model.dims or variant["dims"])
    return found.params, found.flops


@pytest.mark.parametrize("size", [(64, 64), (160, 160), (96, 70)])
@pytest.mark.parametrize(("mixer", "peg"), ARMS)
def test_every_formula_is_the_count_on_the_model(mixer, peg, size):
    config = config_of({"model.mixer": mixer, "model.peg": peg}, size)
    assert by_formula(config) == counted(config)


@pytest.mark.parametrize("settings", OFFSETS, ids=str)
def test_so_is_that_of_every_offset_mode(settings):
    config = config_of(settings)
    assert by_formula(config) == counted(config)


@pytest.mark.parametrize("mixer", MIXERS)
def test_and_that_of_a_published_variant(mixer):
    config = config_of({"model": "xt", "model.mixer": mixer, "model.peg": True}, (224, 224), "imagenet")
    assert by_formula(config) == counted(config)


def test_a_mixer_costs_what_is_computed_by_hand():
    """A stage of 64 channels on a map of 14 x 14 tokens, as xT's second at 112 px."""
    tokens, dim = 196, 64
    expected = {
        "window": (3 * dim * (dim + 1) + dim * (dim + 1) + 169 * 2, tokens * dim * (4 * dim + 2 * 49)),
        "halo": (4 * dim * dim + dim + 2 * 25 * 32, tokens * dim * (4 * dim + 2 * 169 + 26)),
        "global": (4 * dim * (dim + 1) + 16 * dim * dim + dim + 2 * dim,
                   256 * 2 * dim * dim + 16 * (2 * dim * dim + 16 * dim * dim + 5 * dim) + 2 * 256 * 16 * dim),
        "deform": (2 * dim * (dim + 1) + 10 * dim + 2 * dim + 27 * 4 * (dim + 1),
                   tokens * dim * (2 * dim + 9 + 5 + 27 * 4 + 9)),
        "dwconv3": (2 * dim * (dim + 1) + 10 * dim, tokens * dim * (2 * dim + 9)),
        "dwconv7": (2 * dim * (dim + 1) + 50 * dim, tokens * dim * (2 * dim + 49)),
        "mlp": (2 * 14 * 15 + 3 * dim * dim, tokens * dim * (14 + 14 + 3 * dim)),
        "pool": (0, 0),
        "identity": (0, 0),
    }  # fmt: skip
    import torch

    assert expected.keys() == MIXERS.keys() - {"atm"} and MIXER_COSTS.keys() == MIXERS.keys()
    for name, numbers in expected.items():
        with torch.device("meta"):
            mixer = MIXERS[name](dim, MixerOptions(stage=1, size=(14, 14)))
            found = count(mixer, inputs=(torch.empty(1, 14, 14, dim), None))
        assert (found.params, found.flops) == numbers, name


def test_formulas_and_models_share_their_constants():
    assert {
        "window": WindowMixer.HEAD_DIM, "halo": HaloMixer.HEAD_DIM, "global": GlobalMixer.HEAD_DIM,
        "deform": DeformMixer.GROUP_DIM,
    } == model_costs.HEAD_DIMS  # fmt: skip
    assert GlobalMixer.REDUCTIONS == model_costs.REDUCTIONS
    assert all(heads_of(dim, 32) == heads_of_model(dim, 32) for dim in range(1, 200))
    assert {name for name in MIXERS if getattr(MIXERS[name], "needs_peg", False)} == set(NEED_PEG)


@pytest.mark.parametrize("kind", ["flops", "params"])
@pytest.mark.parametrize("name", read_variants())
def test_matched_arms_cost_what_axial_costs(name, kind):
    recipe, size = ("tiny_imagenet", (64, 64)) if name == "nano" else ("imagenet", (224, 224))
    axial = by_formula(config_of({"model": name}, size, recipe))[kind == "flops"]
    for mixer, peg in ARMS:
        settings = {"model": name, "model.mixer": mixer, "model.peg": peg, "model.match": kind}
        config = config_of(settings, size, recipe)
        assert by_formula(config)[kind == "flops"] == pytest.approx(axial, rel=TOLERANCE), (mixer, peg)
        assert config.model.match is None and from_dict(config.as_dict()) == config
        if (dims := config.model.dims) is not None:
            own = read_variants()[name]["dims"]
            ratios = [dim / variant for dim, variant in zip(dims, own)]
            assert max(ratios) / min(ratios) < 1.25, (mixer, peg, dims)
            fixed = {key: value for key, value in settings.items() if key != "model.match"} | {"model.dims": dims}
            assert run_id(config_of(fixed, size, recipe)) == run_id(config), "the run is that of its widths"


@pytest.mark.parametrize(("mixer", "peg"), ARMS)
def test_a_matched_model_is_counted_within_a_percent(mixer, peg):
    """At the image size of scenes, whose backbone is dense; here with its classifier."""
    settings = {"model.mixer": mixer, "model.peg": peg, "model.match": "flops"}
    matched = counted(config_of(settings, (160, 160)))
    assert matched[1] == pytest.approx(counted(config_of({}, (160, 160)))[1], rel=TOLERANCE)


def test_axial_is_as_wide_as_it_is_and_three_samples_are_narrower():
    assert config_of({"model.match": "flops"}).model.dims is None
    dims = config_of({"model.samples": 3, "model.match": "flops"}).model.dims
    assert all(dim % sharing == 0 for dim, sharing in zip(dims, [2, 4, 4, 8]))
    assert sum(dims) < sum(read_variants()["nano"]["dims"])


def test_mlps_widen_with_their_stage():
    model = config_of({"model.mixer": "identity", "model.match": "flops"}).model
    name, arguments = backbone(model)
    network = timm.create_model(name, **arguments)
    assert [stage.blocks[0].mlp.fc1.out_features for stage in network.stages] == [4 * dim for dim in model.dims]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model.match": "flops", "model.dims": [16, 32, 64, 104]}, "model.match=flops chooses model.dims"),
        ({"model.dims": [16, 32]}, "model.dims=[16, 32]: give a whole number of channels per stage"),
        ({"model.dims": [16, 32, 64, 100]}, "model.offset_sharing=None: give divisors"),
        ({"model.match": "flps"}, "'flops'"),
        ({"model.mixer": "identity", "model.match": "params", "data.num_classes": None}, "set data.num_classes"),
        ({"model": "timm/resnet10t", "model.match": "flops"}, "only variants of ATMNet have it"),
        ({"model.mixer": "global", "model.peg": False}, "model.mixer=global has no positions without PEG"),
        ({"model.mixer": "pool", "model.window_size": 7}, "model.mixer=pool has no windows (valid with: window, halo)"),
        ({"model.window_size": 7}, "model.mixer=atm has no windows"),
        ({"model.mixer": "window", "model.offsets": "joint"}, "model.mixer=window has no such switch"),
        ({"model.mixer": "deform", "model.offset_sharing": 2}, "model.mixer=deform has no such switch"),
        ({"model.mixer_source": "0123456789abcdef"}, "model.mixer=atm is not your own"),
    ],
)
def test_contradictions_are_refused_in_a_line(settings, says):
    with pytest.raises(ConfigError) as refused:
        config_of(settings)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_axial_mlps_are_for_images_of_one_size():
    config = config_of({"model.mixer": "mlp"}, (64, 96))
    assert timm.create_model("atmnet_nano", **backbone(config.model, config.data.image_size)[1]) is not None
    with pytest.raises(ConfigError, match="is for images of one size, and those of task=detection differ"):
        resolve("scenes_boxes", {"model.mixer": "mlp"})


@pytest.mark.parametrize(("size", "window"), [(64, 8), (224, 7), (256, 8), (160, 7), (448, 7)])
def test_windows_pad_maps_as_little_as_they_can(size, window):
    for mixer in ("window", "halo"):
        assert config_of({"model.mixer": mixer}, (size, size)).model.window_size == window
    assert config_of({"model.mixer": "window", "model.window_size": 5}).model.window_size == 5


def test_map_sizes_are_those_of_the_model():
    import torch

    for size in ((64, 64), (65, 97), (33, 127)):
        network = timm.create_model("atmnet_nano", features_only=True)
        maps = network(torch.zeros(1, 3, *size))
        assert [tuple(each.shape[2:]) for each in maps] == map_sizes(size, 4)


def test_a_downstream_run_has_the_widths_of_its_parent(tmp_path):
    sweep = tmp_path / "wide.yaml"
    sweep.write_text(
        "recipes: {smoke: scenes}\ndownstream: {masks: {smoke: scenes_masks}}\nseeds: [0]\nbaseline: axial\narms:\n"
        "  axial: {model.offsets: axial}\n  window: {model.mixer: window, model.match: flops}\n"
    )
    models = [run.config.model for run in load(str(sweep), "smoke").runs if run.arm == "window"]
    assert len(models) == 2 and models[0] == models[1] and models[0].dims


def test_matching_does_not_import_torch():
    code = (
        "import sys; from experiments.config import resolve; "
        "resolve('imagenet', {'model.mixer': 'window', 'model.match': 'flops'}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
