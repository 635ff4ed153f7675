"""Receptive fields equal those known of convolutions; those of runs are measured before and after their training."""

from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest
import timm
import torch
from torch import nn

import run
from experiments.config import resolve
from experiments.folder import weights
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.tasks.registry import build_task
from experiments.training import loop
from measurements.offsets.measure import evaluation_images
from measurements.receptive_field import source
from measurements.receptive_field.measure import measure, receptive_field
from measurements.receptive_field.source import FieldRequest
from reports.receptive_field import measured
from results.run_folders.measurement_file import MeasuredError

SETTINGS = {
    "data.image_size": [64, 64], "data.train_images": 32, "data.eval_images": 4, "train.batch_size": 8,
    "train.epochs": 1, "train.warmup_epochs": 0, "machine.threads": 1,
}  # fmt: skip
WORDS = [f"{key}={json.dumps(value).replace(' ', '')}" for key, value in SETTINGS.items()]


class Convolutions(nn.Module):
    """3×3 convolutions of ones, each the product of [1, 1, 1] with itself, under timm's interface."""

    def __init__(self, layers: int, channels: int = 1, stride: int = 1) -> None:
        super().__init__()
        sizes = [3, *[channels] * layers]
        strides = [stride, *[1] * (layers - 1)]
        self.layers = nn.Sequential(
            *(nn.Conv2d(a, b, 3, s, padding=1, bias=False) for a, b, s in zip(sizes, sizes[1:], strides))
        )
        for layer in self.layers:
            nn.init.ones_(layer.weight)

    def forward_intermediates(self, x, indices, norm, output_fmt, intermediates_only):
        assert not norm and output_fmt == "NCHW" and intermediates_only and indices in (1, [0])
        return [self.layers(x)]


def trinomial(layers: int) -> np.ndarray:
    """The coefficients of (1 + x + x²) to the power of ``layers``."""
    return np.array(
        [sum(comb(layers, k) * comb(k, place - k) for k in range(place + 1)) for place in range(2 * layers + 1)], float
    )


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_stack_of_convolutions_has_the_known_weights_inside_and_nothing_outside(layers):
    images = [torch.rand(2, 3, 21, 17), torch.rand(1, 3, 21, 17)]
    field, shape = receptive_field(Convolutions(layers, channels=3), images)
    expected = np.zeros((21, 17))
    weights_along = trinomial(layers) / 3**layers
    rows, columns = slice(10 - layers, 11 + layers), slice(8 - layers, 9 + layers)
    expected[rows, columns] = np.outer(weights_along, weights_along)
    assert shape == (21, 17) and field.sum() == pytest.approx(1)
    assert field == pytest.approx(expected, abs=1e-7) and (field[expected == 0] == 0).all()


def test_every_image_counts_the_same_however_bright_it_is():
    """The gradient of the squared norm grows with the output; each image's map is divided by its sum."""
    network = Convolutions(1)
    dim, bright = torch.rand(1, 3, 9, 9), 100 * torch.rand(1, 3, 9, 9)
    for layer in network.layers:
        nn.init.normal_(layer.weight)
    alone = [receptive_field(network, [images])[0] for images in (dim, bright)]
    together, _ = receptive_field(network, [torch.cat([dim, bright])])
    assert together == pytest.approx((alone[0] + alone[1]) / 2, abs=1e-7)


def field_of(shares: np.ndarray, tokens=None) -> measured.MeasuredField:
    return measured.MeasuredField({"map": list(tokens or shares.shape)}, {"before": shares})


def test_radii_are_counted_from_the_middle_of_the_centre_token():
    shares = np.zeros((9, 9))
    shares[4, 4], shares[4, 6], shares[1, 4] = 0.5, 0.3, 0.2
    field = field_of(shares)
    assert [field.radius("before", "horizontal", share) for share in (50, 90)] == [0, 2]
    assert [field.radius("before", "vertical", share) for share in (50, 90)] == [0, 3]
    assert field.radius("before", "any", 75) == 2 and field.radius("before", "any", 90) == 3
    coarse = field_of(np.full((8, 8), 1 / 64), tokens=(2, 2))  # token 1 of two covers pixels 4 to 7: its middle is 6
    assert coarse.radius("before", "horizontal", 100) == 5.5


def test_a_network_of_timm_sees_what_its_convolutions_let_it_see():
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=0)
    images = [torch.rand(2, 3, 96, 96)]
    field, shape = receptive_field(network, images, stage=2)
    assert shape == (24, 24) and field.sum() == pytest.approx(1)
    # stem: 3×3 at stride 2, twice 3×3, pooling 3×3 at stride 2; a fresh block adds nothing, its last norm being zero
    reach = 1 + 2 * (1 + 1 + 1)
    middle = 12 * 4  # token 12 is centred on the pixel 48, as all paddings are of one
    outside = np.ones((96, 96), bool)
    outside[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = False
    assert (field[outside] == 0).all() and (field[~outside] > 0).all()


@pytest.mark.parametrize("mixer", ["identity", "global"])
def test_a_mixer_that_reads_everywhere_sees_everything_and_none_sees_near_places(mixer):
    torch.manual_seed(0)
    network = timm.create_model("atmnet_nano", num_classes=0, mixer=mixer, peg=mixer == "global")
    field, _ = receptive_field(network, [torch.rand(1, 3, 128, 128)])
    assert bool((field == 0).any()) == (mixer == "identity")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunFolder:
    config = resolve("scenes", SETTINGS)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / run_id(config))
    folder.freeze(config)
    loop.run(folder)
    return folder


@pytest.mark.slow
def test_a_run_is_measured_as_its_seed_began_it_and_as_it_ended(trained, capsys):
    assert run.main([f"reach={trained.id}", "images=3", f"runs_dir={trained.path.parent}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {(row["state"], row["direction"]) for row in document["rows"]} == {
        (state, direction) for state in ("fresh", "trained") for direction in ("horizontal", "vertical", "any")
    }
    found = measured.read(trained.path / source.FOLDER)
    torch.manual_seed(0)
    fresh = timm.create_model("atmnet_nano", num_classes=0, drop_path_rate=0.0)
    state = weights.read(trained.path / "weights.safetensors")
    assert not np.allclose(found.maps["before"], found.maps["after"])
    weights.load_backbone(fresh, state, "")
    config = trained.config()
    config.data.eval_images = 3
    images = evaluation_images(config, build_task(config).eval_set, 3, torch.device("cpu"))
    expected, shape = receptive_field(fresh, images)
    assert found.maps["after"] == pytest.approx(expected, abs=1e-6) and list(shape) == found.about["map"]
    assert found.about["curve"] and found.about["images"] == 3
    page = (trained.path / source.FOLDER / "report.md").read_text()
    assert "Luo et al." in page and "| trained |" in page


@pytest.mark.slow
def test_results_are_reused_and_damaged_ones_are_named(trained):
    (this,) = source.of_sweep({trained.id: trained.config()}, trained.path.parent).values()
    folder = measure(this, FieldRequest(2))
    before = (folder / "about.json").read_text()
    assert measure(this, FieldRequest(2)) == folder and (folder / "about.json").read_text() == before
    (folder / "maps.npz").write_bytes(b"torn")
    with pytest.raises(MeasuredError, match=r"maps.npz cannot be read .*; --fresh measures again"):
        measured.read(folder)
    measure(this, FieldRequest(2))
    assert set(measured.read(folder).maps) == {"before", "after"}


@pytest.mark.slow
def test_the_arms_of_a_sweep_stand_side_by_side(trained, capsys):
    words = ["protocol=smoke", "seeds=[0]", "arms=[axial,zero]", *WORDS, f"runs_dir={trained.path.parent}", "images=2"]
    assert run.main(["reach=ablation_offsets", *words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (arm,) = {row["arm"] for row in document["rows"]}
    states = {each["arm"]: each["state"] for each in document["runs"]}
    assert states.pop(arm) == "measured" and "no such run" in "".join(states.values())
    page = (trained.path.parent / "reports" / "receptive_field-ablation_offsets-smoke" / "report.md").read_text()
    assert "accuracy of the same runs at that distance" in page


@pytest.mark.slow
def test_files_and_networks_of_timm_are_measured_with_the_images_of_a_recipe(trained, tmp_path, capsys):
    where = [*WORDS, "images=1", f"runs_dir={tmp_path}", "--json"]
    assert run.main([f"reach={trained.path / 'weights.safetensors'}", "experiment=scenes", *where]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"fresh", "trained"}
    assert run.main(["reach=timm/resnet10t", "stage=3", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in document["rows"]} == {"fresh"}
    assert str(tmp_path / source.FOLDER / "resnet10t") in document["written"][0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reach=no-such-run"], "unknown run 'no-such-run'"),
        (["reach=timm/resnet10"], "unknown model 'timm/resnet10'; did you mean"),
        (["reach=timm/resnet10t", "images=0"], "images=0: give a whole number of at least 1"),
        (["reach=timm/resnet10t", "stage=x"], "stage=x: give a whole number of at least 1"),
        (["reach=timm/resnet10t", "stage=9", "images=1", *WORDS], "ResNet takes no stage=9"),
        (["reach=timm/resnet10t", "imges=1"], "unknown key 'imges'"),
    ],
)
def test_a_wrong_command_gets_one_line(tmp_path, capsys, words, says):
    assert run.main([*words, f"runs_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1, err


def test_a_run_is_measured_as_it_is(trained, capsys):
    assert run.main([f"reach={trained.id}", "model.peg=false", f"runs_dir={trained.path.parent}"]) == 2
    assert "measures the run as it is, and model.peg would change it" in capsys.readouterr().err
