"""The mixers of ``atm.token_mixers``: each is its published layer, and works wherever ATMNet does."""

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from timm.layers.halo_attn import HaloAttn
from timm.models.metaformer import Pooling
from timm.models.pvt_v2 import Attention
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from atm import ATMNet
from atm.mixers import MIXERS, MixerOptions
from atm.token_mixers.attention import GlobalMixer, HaloMixer, WindowMixer, heads_of
from atm.token_mixers.axial_mlp import AxialMlpMixer
from atm.token_mixers.convolution import DepthwiseMixer, PoolMixer
from atm.token_mixers.deformable import DeformMixer

OTHERS = [name for name in MIXERS if name not in ("atm", "identity")]
SIZES = [(14, 14), (16, 9), (5, 4), (2, 2), (1, 1)]


def tokens(height: int, width: int, dim: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, height, width, dim, generator=generator, dtype=torch.float64)


def made(build: Callable, dim: int, **options) -> nn.Module:
    """A mixer with weights that are not those before training, so that no part of it is silent."""
    torch.manual_seed(0)
    mixer = build(dim, MixerOptions(**options)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0, 0.3)
    return mixer


def nano(**arguments) -> ATMNet:
    torch.manual_seed(0)
    peg = arguments.pop("peg", True)
    return timm.create_model("atmnet_nano", num_classes=5, img_size=64, peg=peg, **arguments)


def image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def swin_block(mixer: WindowMixer, height: int, width: int) -> SwinTransformerBlock:
    """timm's block with the weights of ours; where the map is smaller than a window, with the middle of the table."""
    dim = mixer.proj.in_features
    block = SwinTransformerBlock(
        dim, (height, width), num_heads=mixer.heads, window_size=mixer.window, shift_size=mixer.shift
    ).double()
    rows, columns = block.window_size
    middle = (
        slice(mixer.window - rows, mixer.window + rows - 1),
        slice(mixer.window - columns, mixer.window + columns - 1),
    )
    with torch.no_grad():
        block.attn.relative_position_bias_table.copy_(mixer.relative_position_bias_table[middle].flatten(0, 1))
        for ours, theirs in ((mixer.qkv, block.attn.qkv), (mixer.proj, block.attn.proj)):
            theirs.load_state_dict(ours.state_dict())
    return block


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("size", [(7, 7), (14, 21), (5, 4), (14, 3), (2, 2)])
def test_window_is_swins(size: tuple[int, int], block: int) -> None:
    mixer, x = made(WindowMixer, 64, block=block), tokens(*size, 64)
    assert (mixer.heads, mixer.shift) == (2, 3 * block)
    torch.testing.assert_close(mixer(x), swin_block(mixer, *size)._attn(x))


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("size", [(10, 8), (14, 9)])
def test_window_pads_the_map_to_whole_windows(size: tuple[int, int], block: int) -> None:
    """timm shifts before it pads, and then masks other tokens than those that came from the other end."""
    mixer, x = made(WindowMixer, 32, block=block), tokens(*size, 32)
    padded = functional.pad(x, [0, 0, 0, 14 - size[1], 0, 14 - size[0]])
    expected = swin_block(mixer, 14, 14)._attn(padded)[:, : size[0], : size[1]]
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize("size", [(7, 7), (14, 21), (4, 4), (2, 2)])
def test_halo_is_halonets(size: tuple[int, int]) -> None:
    mixer, x = made(HaloMixer, 64), tokens(*size, 64)
    block = min(mixer.block, size[0])
    theirs = HaloAttn(64, num_heads=mixer.heads, block_size=block, halo_size=3).double()
    # queries and keys of a smaller block are nearer to each other
    near = slice(mixer.block - block, 2 * (mixer.block + 6) - 1 - (mixer.block - block))
    with torch.no_grad():
        theirs.q.weight.copy_(mixer.q.weight[..., None, None])
        theirs.kv.weight.copy_(mixer.kv.weight[..., None, None])
        theirs.pos_embed.height_rel.copy_(mixer.height_rel[near])
        theirs.pos_embed.width_rel.copy_(mixer.width_rel[near])
    expected = mixer.proj(theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    torch.testing.assert_close(mixer(x), expected)


def test_halo_pads_the_map_to_whole_blocks() -> None:
    mixer, x = made(HaloMixer, 32), tokens(10, 8, 32)
    expected = mixer(functional.pad(x, [0, 0, 0, 6, 0, 4]))[:, :10, :8]
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize(("stage", "reduction"), [(0, 8), (1, 4), (2, 2), (3, 1)])
def test_global_is_pvts(stage: int, reduction: int) -> None:
    mixer, x = made(GlobalMixer, 64, stage=stage), tokens(16, 8, 64)
    theirs = Attention(64, num_heads=1, sr_ratio=reduction).double()
    theirs.load_state_dict(mixer.attention.state_dict())
    torch.testing.assert_close(mixer(x), theirs(x.flatten(1, 2), [16, 8]).reshape(x.shape))
    assert GlobalMixer(512, MixerOptions(stage=stage)).attention.num_heads == 8


def test_global_reads_every_token_of_a_map_that_must_be_padded() -> None:
    mixer, x = made(GlobalMixer, 16), tokens(9, 3, 16)
    x.requires_grad_()
    mixer(x)[0, 0, 0].sum().backward()
    assert (x.grad[0] != 0).all() and (x.grad[1] == 0).all()


def test_pool_is_poolformers() -> None:
    mixer, x = PoolMixer(3, MixerOptions()), tokens(4, 5, 3)
    torch.testing.assert_close(mixer(x), Pooling()(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    corner, middle = x[:, :2, :2].mean((1, 2)) - x[:, 0, 0], x[:, 1:4, 2:5].mean((1, 2)) - x[:, 2, 3]
    torch.testing.assert_close(mixer(x)[:, 0, 0], corner)
    torch.testing.assert_close(mixer(x)[:, 2, 3], middle)


@pytest.mark.parametrize("kernel", [3, 7])
def test_a_depthwise_convolution_weighs_each_channels_neighbours(kernel: int) -> None:
    mixer, x = made(partial(DepthwiseMixer, kernel=kernel), 4), tokens(5, 6, 4)
    half = kernel // 2
    around = functional.pad(mixer.fc_in(x), [0, 0, half, half, half, half])
    total = mixer.depthwise.bias.expand(2, 5, 6, 4)
    for row in range(kernel):
        for column in range(kernel):
            weight = mixer.depthwise.weight[:, 0, row, column]
            total = total + weight * around[:, row : row + 5, column : column + 6]
    torch.testing.assert_close(mixer(x), mixer.fc_out(total))


def parts_of_deform(mixer: DeformMixer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is read, offsets [B, H, W, 2, 9, G] (right, down) without the grid, weights [B, H, W, 9, G]."""
    guide = mixer.act(mixer.norm(mixer.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
    shape = (*x.shape[:3], 9, mixer.groups)
    moves = mixer.points(guide).reshape(*x.shape[:3], 2, 9, mixer.groups)
    return mixer.fc_in(x), moves, mixer.weights(guide).reshape(shape).softmax(dim=3)


def test_deform_is_a_loop_over_points_and_groups() -> None:
    mixer, x = made(DeformMixer, 32), tokens(4, 5, 32, batch=1)
    assert mixer.groups == 2
    values, moves, weights = parts_of_deform(mixer, x)
    total = torch.zeros_like(x)

    def at(row: int, column: int, channels: slice) -> Tensor:
        inside = 0 <= row < 4 and 0 <= column < 5
        return values[0, row, column, channels] if inside else torch.zeros(16, dtype=x.dtype)

    for row in range(4):
        for column in range(5):
            for point in range(9):
                for group in range(2):
                    channels = slice(16 * group, 16 * group + 16)
                    right, down = moves[0, row, column, :, point, group].tolist()
                    y, z = row + point // 3 - 1 + down, column + point % 3 - 1 + right
                    top, left = int(y // 1), int(z // 1)
                    share_y, share_x = y - top, z - left
                    read = (
                        (1 - share_y) * (1 - share_x) * at(top, left, channels)
                        + (1 - share_y) * share_x * at(top, left + 1, channels)
                        + share_y * (1 - share_x) * at(top + 1, left, channels)
                        + share_y * share_x * at(top + 1, left + 1, channels)
                    )
                    total[0, row, column, channels] += weights[0, row, column, point, group] * read
    torch.testing.assert_close(mixer(x), mixer.fc_out(total))


def test_deform_is_torchvisions_convolution_with_masks() -> None:
    """Where all kernel weights are one, a deformable convolution of each channel is the weighted sum of its reads."""
    mixer, x = made(DeformMixer, 48), tokens(6, 7, 48)
    values, moves, weights = parts_of_deform(mixer, x)
    offsets = moves.flip(3).permute(0, 5, 4, 3, 1, 2).reshape(2, -1, 6, 7)  # by group and point, down before right
    masks = weights.permute(0, 4, 3, 1, 2).reshape(2, -1, 6, 7)
    ones = torch.ones(48, 1, 3, 3, dtype=x.dtype)
    read = deform_conv2d(values.permute(0, 3, 1, 2), offsets, ones, padding=1, mask=masks).permute(0, 2, 3, 1)
    torch.testing.assert_close(mixer(x), mixer.fc_out(read))


def test_deform_begins_as_a_mean_of_neighbours() -> None:
    mixer, x = nano(mixer="deform").stages[0].blocks[0].mixer.double(), tokens(6, 6, 16)
    padded = functional.pad(mixer.fc_in(x), [0, 0, 1, 1, 1, 1]).permute(0, 3, 1, 2)
    expected = mixer.fc_out(functional.avg_pool2d(padded, 3, stride=1).permute(0, 2, 3, 1))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-5, atol=1e-6)


def test_mlp_weighs_the_tokens_of_its_row_and_column() -> None:
    mixer, x = made(AxialMlpMixer, 3, size=(4, 5)), tokens(4, 5, 3)
    row = torch.einsum("bhwc,vw->bhvc", x, mixer.fc_w.weight) + mixer.fc_w.bias[:, None]
    column = torch.einsum("bhwc,vh->bvwc", x, mixer.fc_h.weight) + mixer.fc_h.bias[:, None, None]
    torch.testing.assert_close(mixer(x), mixer.fuse(torch.cat([x, column, row], dim=-1)))
    with pytest.raises(ValueError, match="maps of 4 x 5 tokens, not 5 x 4"):
        mixer(tokens(5, 4, 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OTHERS)
def test_a_map_of_any_size_has_the_right_gradients(name: str, size: tuple[int, int]) -> None:
    mixer = made(MIXERS[name], 4, size=size, block=1, stage=1, window=3)
    x = tokens(*size, 4, batch=1).requires_grad_()
    assert mixer(x).shape == x.shape
    if size == (5, 4):
        chosen = [parameter for parameter in mixer.parameters() if parameter.numel() < 200]
        assert torch.autograd.gradcheck(lambda *_: mixer(x), (x, *chosen), fast_mode=True)


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_are_the_same_with_and_without_recomputation(name: str) -> None:
    model = nano(mixer=name)
    plain = copy.deepcopy(model)
    for stage in plain.stages:
        for block in stage.blocks:
            block.recomputes = False
    for network in (model, plain):
        network(image()).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", OTHERS)
def test_an_arm_trains_two_steps(name: str) -> None:
    model = nano(mixer=name, drop_path_rate=0.1)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(model(image()), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert not [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]


@pytest.mark.parametrize("peg", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_an_arm_is_the_frame_with_another_mixer(name: str, peg: bool) -> None:
    if name == "global" and not peg:
        pytest.skip("it needs PEG")
    frame = {key: p.shape for key, p in nano(mixer="identity", peg=peg).named_parameters()}
    model = nano(mixer=name, peg=peg)
    assert {key: p.shape for key, p in model.named_parameters() if ".mixer." not in key} == frame
    dense = timm.create_model("atmnet_nano", mixer=name, peg=peg, img_size=64, features_only=True)
    assert [tuple(m.shape[1:]) for m in dense(image())] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (96, 2, 2)]


@pytest.mark.parametrize("name", OTHERS)
def test_an_arm_scripts_compiles_and_is_pickled(name: str) -> None:
    model = nano(mixer=name).eval()
    expected = model(image())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the retirement of TorchScript
        torch.testing.assert_close(torch.jit.script(model)(image()), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(image()), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(image()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(image()) - expected).abs().max() < 0.05


def test_weights_begin_as_published() -> None:
    def std(weight: Tensor) -> float:
        return float(weight.detach().std())

    window = nano(mixer="window").stages[3].blocks[1].mixer
    assert std(window.qkv.weight) == pytest.approx(0.02, rel=0.1)
    assert std(window.relative_position_bias_table) == pytest.approx(0.02, rel=0.2)
    halo = nano(mixer="halo").stages[3].blocks[1].mixer
    for layer in (halo.q, halo.kv):
        assert std(layer.weight) == pytest.approx(96**-0.5, rel=0.1)
    assert std(halo.height_rel) == pytest.approx(32**-0.5, rel=0.2)
    assert std(nano(mixer="dwconv7").stages[3].blocks[1].mixer.depthwise.weight) == pytest.approx(0.02, rel=0.1)
    reduced = nano(mixer="global").stages[2].blocks[1].mixer.attention
    assert std(reduced.sr.weight) == pytest.approx((2 / (4 * 64)) ** 0.5, rel=0.1)
    deform = nano(mixer="deform").stages[3].blocks[1].mixer
    assert not deform.points.weight.any() and not deform.weights.weight.any()
    assert std(deform.fc_in.weight) == pytest.approx((2 / (96 + 96)) ** 0.5, rel=0.1)


def test_tables_of_window_have_no_weight_decay() -> None:
    model = nano(mixer="window")
    tables = {key for key, _ in model.named_parameters() if key.endswith("relative_position_bias_table")}
    assert len(tables) == 8 and model.no_weight_decay() == tables | nano(mixer="pool").no_weight_decay()
    assert model.no_weight_decay() <= {key for key, _ in model.named_parameters()}


def test_windows_alternate_and_have_the_given_side() -> None:
    mixers = [block.mixer for stage in nano(mixer="window", window_size=8).stages for block in stage.blocks]
    assert [(mixer.window, mixer.shift) for mixer in mixers] == [(8, 0), (8, 4)] * 4
    assert nano(mixer="halo", window_size=8).stages[0].blocks[0].mixer.block == 8


def test_global_attention_needs_positions() -> None:
    assert nano(mixer="global", peg=None).no_weight_decay()
    for peg in (False, "predictor"):
        with pytest.raises(ValueError, match="'global' has no positions without a PEG"):
            nano(mixer="global", peg=peg)


@pytest.mark.parametrize(
    ("dim", "head_dim", "heads"), [(64, 32, 2), (512, 32, 16), (96, 32, 3), (320, 64, 5), (16, 32, 1), (68, 32, 2)]
)
def test_heads_divide_the_width(dim: int, head_dim: int, heads: int) -> None:
    assert heads_of(dim, head_dim) == heads
