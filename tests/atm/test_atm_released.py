"""Released checkpoints load and compute the same: checked against an independent model with the released keys."""

import argparse

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from atm.released import CheckpointError, convert, load
from atm.variants import VARIANTS

# The released model, written from its specification: channels-first sampling by deformable convolution with one offset
# group per channel, 1x1 kernels, and the checkpoint's module names. It shares no code with the package under test.
CONFIGS = {
    "xt": ((64, 128, 320, 512), (2, 2, 4, 2), (4, 4, 4, 4), (2, 4, 4, 8), 2),
    "t": ((64, 128, 320, 512), (2, 3, 10, 3), (4, 4, 4, 4), (2, 4, 4, 8), 2),
    "s": ((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4), (2, 4, 4, 8), 6),
    "l": ((96, 192, 384, 768), (3, 4, 24, 3), (4, 4, 4, 4), (2, 4, 4, 8), 6),
}


def module(**children: nn.Module) -> nn.Module:
    parent = nn.Module()
    for name, child in children.items():
        parent.add_module(name, child)
    return parent


class ReferenceKernel(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim, 1, 1))
        self.bias = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, along_y: Tensor, along_x: Tensor) -> Tensor:
        """x, along_y, along_x: [B, C, H, W]."""
        return deform_conv2d(x, torch.stack([along_y, along_x], dim=2).flatten(1, 2), self.weight, self.bias)


class Reference(nn.Module):
    def __init__(self, variant: str, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        dims, self.depths, ratios, self.sharing, self.interval = CONFIGS[variant]
        self.patch_embed = module(proj=nn.Conv2d(in_chans, dims[0], 7, 4, 2))
        self.blocks, self.pos_blocks = nn.ModuleList(), nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(dims, self.depths)):
            self.pos_blocks.append(module(proj=nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)))
            self.blocks.append(nn.ModuleList())
            for j in range(depth):
                fusion = module(fc1=nn.Linear(dim, dim // 4), fc2=nn.Linear(dim // 4, 3 * dim))
                block = module(
                    norm1=nn.LayerNorm(dim),
                    atm=module(
                        atm_c=nn.Linear(dim, dim, bias=False),
                        atm_h=ReferenceKernel(dim),
                        atm_w=ReferenceKernel(dim),
                        fusion=fusion,
                        proj=nn.Linear(dim, dim),
                    ),
                    norm2=nn.LayerNorm(dim),
                    mlp=module(fc1=nn.Linear(dim, ratios[i] * dim), fc2=nn.Linear(ratios[i] * dim, dim)),
                )
                if j % self.interval == 0 and j != depth - 1:
                    predict = nn.Linear(dim, 2 * dim // self.sharing[i])
                    block.add_module("offset_layer", nn.Sequential(nn.LayerNorm(dim), predict))
                if j == depth - 1 and i < 3:
                    block.add_module("downsample", module(proj=nn.Conv2d(dim, dims[i + 1], 3, 2, 1)))
                self.blocks[i].append(block)
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], num_classes)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else (2.0 / parameter[0].numel()) ** 0.5
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            nn.init.normal_(parameter, centre, spread, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed.proj(image).permute(0, 2, 3, 1)
        for i, stage in enumerate(self.blocks):
            offsets = None
            for block in stage:
                if hasattr(block, "offset_layer"):
                    x = x + self.pos_blocks[i].proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
                    offsets = block.offset_layer(x).repeat_interleave(self.sharing[i], -1).permute(0, 3, 1, 2)
                x = x + self.mix(block.atm, block.norm1(x), *offsets.chunk(2, dim=1))
                x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
                if hasattr(block, "downsample"):
                    x = block.downsample.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.head(self.norm(x).mean((1, 2)))

    @staticmethod
    def mix(atm: nn.Module, x: Tensor, offset_w: Tensor, offset_h: Tensor) -> Tensor:
        image, zeros = x.permute(0, 3, 1, 2), torch.zeros_like(offset_w)
        w = atm.atm_w(image, zeros, offset_w).permute(0, 2, 3, 1)
        h = atm.atm_h(image, offset_h, zeros).permute(0, 2, 3, 1)
        c = atm.atm_c(x)
        summary = (w + h + c).flatten(1, 2).mean(1)
        scores = atm.fusion.fc2(F.gelu(atm.fusion.fc1(summary))).unflatten(1, (-1, 3)).softmax(-1)
        a_w, a_h, a_c = (scores[:, None, None, :, k] for k in range(3))
        return atm.proj(a_w * w + a_h * h + a_c * c)


@pytest.fixture(scope="module")
def xt() -> dict[str, Tensor]:
    return Reference("xt").state_dict()


@pytest.mark.parametrize("variant", ["xt", "s", "l"])
def test_computes_what_the_released_model_computes(variant: str) -> None:
    reference = Reference(variant).eval()
    model = timm.create_model(f"atmnet_{variant}", num_classes=10).eval()
    model.load_state_dict(convert(reference.state_dict()), strict=True)
    image = torch.randn(1, 3, 72, 104, generator=torch.Generator().manual_seed(1))
    offsets = []
    model.stages[0].blocks[0].offsets.register_forward_hook(lambda *hook: offsets.append(hook[2]))
    with torch.no_grad():
        ours, theirs = model(image), reference(image)
    assert offsets[0].abs().mean() > 0.3  # tokens read at a distance
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["xt", "t", "s", "l"])
def test_recognises_the_variant(variant: str, tmp_path) -> None:
    with torch.device("meta"):
        state = {key: value.shape for key, value in Reference(variant, num_classes=7, in_chans=1).state_dict().items()}
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in state.items()}, tmp_path / "released.pth")
    model = load(tmp_path / "released.pth")
    assert model.default_cfg["architecture"] == f"atmnet_{variant}"
    assert (model.num_classes, model.in_chans, model.training) == (7, 1, False)


def test_chooses_averaged_or_raw_weights(xt: dict[str, Tensor]) -> None:
    averaged = {key: value + 1 for key, value in xt.items()}
    for raw_key, averaged_key in (("model", "model_ema"), ("state_dict", "state_dict_ema")):
        checkpoint = {raw_key: xt, averaged_key: averaged, "epoch": 300, "optimizer": {}}
        assert torch.equal(convert(checkpoint)["norm.bias"], averaged["norm.bias"])
        assert torch.equal(convert(checkpoint, ema=False)["norm.bias"], xt["norm.bias"])
    with pytest.warns(UserWarning, match="no averaged weights"):
        assert torch.equal(convert({"model": xt, "epoch": 3})["norm.bias"], xt["norm.bias"])
    with pytest.raises(CheckpointError, match="averaged weights only"):
        convert({"model_ema": averaged}, ema=False)


def test_strips_prefixes_of_distributed_training(xt: dict[str, Tensor]) -> None:
    prefixed = {f"module.{key}": value for key, value in xt.items()}
    expected = convert(xt)
    for checkpoint in (prefixed, {"model": xt, "model_ema": prefixed}):
        converted = convert(checkpoint)
        assert converted.keys() == expected.keys()
        assert all(torch.equal(converted[key], expected[key]) for key in expected)


def test_takes_linear_layers_stored_either_way(xt: dict[str, Tensor]) -> None:
    key = "blocks.2.1.atm.atm_c.weight"
    as_kernel = {**xt, key: xt[key][:, :, None, None]}
    assert torch.equal(convert(as_kernel)["stages.2.blocks.1.mixer.fc_c.weight"], xt[key])


def test_loads_files(xt: dict[str, Tensor], tmp_path) -> None:
    averaged = {key: value + 1 for key, value in xt.items()}
    command_line = argparse.Namespace(model="ATMNet", lr=1e-3)
    torch.save({"model": xt, "model_ema": averaged, "args": command_line}, tmp_path / "training.pth")
    safetensors.torch.save_file({key: value.contiguous() for key, value in xt.items()}, tmp_path / "raw.safetensors")
    assert torch.equal(load(tmp_path / "training.pth").norm.bias, averaged["norm.bias"])
    assert torch.equal(load(tmp_path / "training.pth", ema=False).norm.bias, xt["norm.bias"])
    assert torch.equal(load(tmp_path / "raw.safetensors").norm.bias, xt["norm.bias"])


def test_timm_loads_released_files_too(xt: dict[str, Tensor], tmp_path) -> None:
    torch.save(xt, tmp_path / "raw.pth")
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "raw.pth"), "num_classes": 10}}
    model = timm.create_model("atmnet_xt", num_classes=10, **options)
    assert torch.equal(model.norm.bias, xt["norm.bias"])
    fewer_classes = timm.create_model("atmnet_xt", num_classes=3, **options)
    assert torch.equal(fewer_classes.norm.bias, xt["norm.bias"]) and fewer_classes.head.out_features == 3
    dense = timm.create_model("atmnet_xt", features_only=True, **options)
    assert torch.equal(dense.model.stem.weight, xt["patch_embed.proj.weight"])


def without(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def test_the_error_names_the_fault(xt: dict[str, Tensor]) -> None:
    cases = [
        (without(xt, "head."), r"atmnet_xt: 2 missing: head.weight, head.bias$"),
        (without(xt, "patch_embed."), r"atmnet_xt: 2 missing: patch_embed.proj.weight"),
        (without(xt, "blocks.2.3."), r"atmnet_xt: \d\d missing: blocks.2.3.norm1.weight, .*, …$"),
        ({**xt, "blocks.2.4.norm1.weight": xt["norm.bias"]}, r"1 unexpected: blocks.2.4.norm1.weight$"),
        ({**xt, "norm.bias": torch.zeros(3)}, r"1 of the wrong shape: norm.bias$"),
        ({**xt, "norm.bias": "text"}, r"1 of the wrong shape: norm.bias$"),
        ({"layer1.0.conv1.weight": torch.zeros(3)}, r"not a released ATMNet: .* but layer1.0.conv1.weight$"),
        ({}, r"but nothing$"),
        ([xt], r"not list$"),
    ]
    for checkpoint, message in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            convert(checkpoint)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors", "empty.pth", "text.pth", "absent.pth"])
def test_refuses_unreadable_files_in_one_line(name: str, tmp_path) -> None:
    path = tmp_path / name
    if name.startswith("torn"):
        save = safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save
        save({"norm.bias": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif name != "absent.pth":
        path.write_text("no weights" if name == "text.pth" else "")
    with pytest.raises(CheckpointError, match=name) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_the_reference_agrees_with_the_variants_file() -> None:
    for name, (dims, depths, ratios, sharing, interval) in CONFIGS.items():
        variant = VARIANTS[name]
        assert [list(dims), list(depths), list(ratios), list(sharing), interval] == [
            variant[key] for key in ("dims", "depths", "mlp_ratios", "offset_sharing", "offset_interval")
        ]
