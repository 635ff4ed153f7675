"""ATMNet as the backbone of other libraries' models. Those that the suite does not need are the extra ``clients``."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models._hub import save_for_hf
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

import atm  # noqa: F401  (registers the models)
from tests.atm.clients import client

ARMS: list[dict[str, Any]] = [{}, {"offsets": "joint"}]


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def assert_all_parameters_learn(model: nn.Module, loss: Tensor) -> None:
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("arm", ARMS, ids=str)
@pytest.mark.parametrize("decoder", ["Unet", "FPN", "UPerNet"])
def test_a_decoder_reads_the_maps_of_the_model(decoder: str, arm: dict) -> None:
    smp = client("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = getattr(smp, decoder)("tu-atmnet_nano", encoder_weights=None, classes=5, **arm)
    torch.manual_seed(0)
    alone = timm.create_model("atmnet_nano", features_only=True, **arm)
    alone.load_state_dict(model.encoder.model.state_dict())
    for ours, theirs in zip(model.encoder(images())[-4:], alone(images()), strict=True):
        assert torch.equal(ours, theirs)
    segmented = model(images())
    assert segmented.shape == (2, 5, 64, 96)
    assert_all_parameters_learn(model, segmented.square().mean())


class Pyramid(nn.Module):
    """The maps of ATMNet through torchvision's FPN, as its detectors read a backbone."""

    out_channels = 32

    def __init__(self, **arm: Any) -> None:
        super().__init__()
        self.body = timm.create_model("atmnet_nano", features_only=True, **arm)
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn({str(i): map for i, map in enumerate(self.body(x))})
        return maps


@pytest.mark.parametrize("arm", ARMS, ids=str)
@pytest.mark.parametrize("detector", [RetinaNet, FasterRCNN])
def test_a_detector_of_torchvision_learns_and_detects(detector: Callable[..., nn.Module], arm: dict) -> None:
    torch.manual_seed(0)
    anchors = AnchorGenerator(tuple((size,) for size in (16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 4)
    name = "anchor_generator" if detector is RetinaNet else "rpn_anchor_generator"
    options = {} if detector is RetinaNet else {
        "box_roi_pool": MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    }  # fmt: skip
    model = detector(Pyramid(**arm), num_classes=3, min_size=64, max_size=96, **{name: anchors}, **options)
    targets = [{"boxes": torch.tensor([[8.0, 8, 40, 56]]), "labels": torch.tensor([1])} for _ in range(2)]
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.01), []
    for _ in range(3):
        torch.manual_seed(0)  # of the samples of anchors
        loss = sum(model(list(images()), targets).values())
        optimizer.zero_grad()
        assert_all_parameters_learn(model.backbone.body, loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    found = model.eval()(list(images()))
    assert [set(each) for each in found] == [{"boxes", "labels", "scores"}] * 2


@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 3)])
def test_the_backbone_wrapper_of_transformers_gives_the_same_maps(indices: tuple[int, ...], tmp_path) -> None:
    transformers = client("transformers")
    classifier = timm.create_model("atmnet_nano", num_classes=4, offsets="joint")
    save_for_hf(classifier, tmp_path, model_args={"offsets": "joint"}, safe_serialization=True)
    name = f"local-dir:{tmp_path}"
    wrapped = transformers.TimmBackbone.from_pretrained(name, out_indices=indices).eval()
    alone = timm.create_model(name, pretrained=True, features_only=True, out_indices=indices).eval()
    maps = wrapped(images()).feature_maps
    for ours, theirs in zip(maps, alone(images()), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(alone.model.stem.weight, classifier.stem.weight)
