"""The layers that give a block its offsets, the positional encoding before them, and the rule which blocks have one."""

import math

import torch
from timm.layers import trunc_normal_
from torch import Tensor, fx, nn
from torch.nn import functional

from atm.shortcuts import is_plain

PREDICTED = ("token", "joint", "axial", "frozen")
"""Offset modes whose offsets depend on the tokens. Those of "static", "shift" and "random" are constants."""
SHIFT_WIDTH = 1  # tokens
RANDOM_SPREAD = 4.0  # tokens
INIT_STD = 0.02  # of every Linear's weights (released model)


class OffsetLayer(nn.Module):
    """Gives a block its offsets: ``forward`` maps the block's input [B, H, W, C] to [B, H, W, 2 * samples * groups].

    dim: C; groups: offsets per direction and sample. Offsets are in tokens, in at least float32. Their last axis reads
    as [direction, sample, group]: the first half is horizontal (W), the second vertical (H). Forward hooks on these
    modules (``stages.I.blocks.J.offsets`` in the backbone) see all offsets that a model uses.
    """

    def __init__(self, dim: int, groups: int, samples: int) -> None:
        super().__init__()
        self.dim = dim
        self.groups = groups
        self.samples = samples


class OffsetPredictor(OffsetLayer):
    """Predicts every token's offsets from the token alone: LN, then Linear (released model).

    The Linear is *not* zero-initialised. trained: False keeps LN and Linear at their initialisation (mode "frozen").
    """

    def __init__(self, dim: int, groups: int, samples: int = 1, trained: bool = True) -> None:
        super().__init__(dim, groups, samples)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, 2 * samples * groups)
        self.requires_grad_(trained)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C], the raw block input. Returns [B, H, W, 2 * samples * groups]."""
        if torch.jit.is_scripting():  # it has no autocast
            return self.proj(self.norm(x))
        else:
            return self._predict(x)

    @torch.jit.unused
    def _predict(self, x: Tensor) -> Tensor:
        if isinstance(x, fx.Proxy):
            if not (is_plain(self.norm, nn.LayerNorm) and is_plain(self.proj, nn.Linear)):
                return self.proj(self.norm(x))
            norm, proj = self.norm, self.proj
            return predicted(x, norm.weight, norm.bias, norm.eps, proj.weight, proj.bias)
        if x.is_meta:
            return self.proj(self.norm(x))
        # Autocast would round offsets to 8 bits: 1/8 of a token at a distance of 20.
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.proj(self.norm(x.to(_computing_dtype(self))))


def predicted(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor, bias: Tensor) -> Tensor:
    """What ``OffsetPredictor`` computes, as one call that torch.fx records: a graph cannot turn autocast off."""
    if torch.jit.is_scripting():
        return functional.linear(functional.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, eps), weight, bias)
    else:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x = functional.layer_norm(x.to(weight.dtype), norm_weight.shape, norm_weight, norm_bias, eps)
            return functional.linear(x, weight, bias)


fx.wrap("predicted")


def _computing_dtype(predictor: OffsetPredictor) -> torch.dtype:
    """The type of the tokens that the layers take, also where other (for instance quantised) layers replace them."""
    weight = predictor.proj.weight
    if isinstance(weight, Tensor) and weight.is_floating_point():
        return weight.dtype
    return next((p.dtype for p in predictor.parameters() if p.is_floating_point()), torch.float32)


class ConstantOffsets(OffsetLayer):
    """The same offsets at every token of every image: the controls for offsets that depend on content.

    ``values`` [2 * samples * groups], of a subclass, times ``scale`` are the offsets in tokens.
    """

    values: Tensor

    def __init__(self, dim: int, groups: int, samples: int) -> None:
        super().__init__(dim, groups, samples)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C], of which only the size is used. Returns [B, H, W, 2 * samples * groups], not contiguous."""
        return at_every_token(self.scale, self.values, x)


def at_every_token(scale: float, values: Tensor, x: Tensor) -> Tensor:
    """``scale * values`` [O] at every token of ``x`` [B, H, W, C], as one call that torch.fx records. [B, H, W, O]."""
    return (scale * values).expand(x.shape[0], x.shape[1], x.shape[2], values.shape[0])


fx.wrap("at_every_token")


class StaticOffsets(ConstantOffsets):
    """Mode "static": one learned offset per channel group, direction and sample.

    The values are initialised as a predictor's weights are, and multiplied by sqrt(C), the norm of a predictor's
    normalised input: the offsets begin with the spread of axial ones, and an optimizer that moves every weight by the
    learning rate (Adam) moves them by sqrt(C) times that, where a predictor moves its own by up to C times. Without the
    factor a rate at which predictors travel across the map would leave static offsets where they began. As a
    one-dimensional parameter they have no weight decay, which would pull every read towards its own token.
    """

    def __init__(self, dim: int, groups: int, samples: int = 1) -> None:
        super().__init__(dim, groups, samples)
        self.scale = math.sqrt(dim)
        self.values = nn.Parameter(trunc_normal_(torch.empty(2 * samples * groups), std=INIT_STD))


class ShiftedOffsets(ConstantOffsets):
    """Mode "shift": whole steps by parts of the channels, as in AS-MLP (ICLR 2022).

    Of the 2 * width + 1 equal parts of neighbouring channels (sizes differ by at most one channel) the first reads
    ``width`` tokens to the left and above, the last as far to the right and below. Nothing is learned or saved.
    Raises ValueError if there are fewer channels than parts.
    """

    def __init__(self, dim: int, width: int = SHIFT_WIDTH) -> None:
        super().__init__(dim, dim, 1)
        parts = 2 * width + 1
        if width < 1 or parts > dim:
            raise ValueError(
                f"shift_width={width} needs 3 or more parts of {dim} channels (valid: 1 to {(dim - 1) // 2})"
            )
        steps = torch.arange(dim) * parts // dim - width
        self.register_buffer("values", steps.to(torch.get_default_dtype()).repeat(2), persistent=False)


class RandomOffsets(ConstantOffsets):
    """Mode "random": offsets drawn once, uniform between -spread and spread tokens, and never trained.

    They are drawn from PyTorch's generator, as every initialisation is, and saved with the weights. The draw is exact:
    the same seed gives the same bits on every CPU.
    """

    def __init__(self, dim: int, groups: int, samples: int = 1, spread: float = RANDOM_SPREAD) -> None:
        super().__init__(dim, groups, samples)
        if not 0 < spread < math.inf:
            raise ValueError(f"random_spread={spread} must be a positive number of tokens")
        # rand has 24 random bits, so only the last product is rounded; uniform_ would round as the compiler sees fit
        self.register_buffer("values", (2 * torch.rand(2 * samples * groups) - 1) * spread)


def check_switches(mode: str, peg: bool | str, shift_width: int | None, random_spread: float | None) -> None:
    """Raises ValueError, which names the valid modes, for a switch that an offset mode does not have."""
    for name, value, only in (("shift_width", shift_width, "shift"), ("random_spread", random_spread, "random")):
        if value is not None and mode != only:
            raise ValueError(f"{name}={value} is valid for offsets={only!r} only, not for offsets={mode!r}")
    if peg == "predictor":
        if mode not in PREDICTED:
            raise ValueError(
                f"peg='predictor' feeds predicted offsets, and offsets={mode!r} has none (valid for: "
                f"{', '.join(PREDICTED)})"
            )
    elif not isinstance(peg, bool):
        raise ValueError(f"unknown peg {peg!r} (valid: True, False, 'predictor')")


def offset_layer(
    mode: str, dim: int, groups: int, samples: int, shift_width: int = SHIFT_WIDTH, random_spread: float = RANDOM_SPREAD
) -> OffsetLayer:
    """The layer of a mode other than "zero". ``groups`` is not used by "shift", which has an offset per channel."""
    if mode == "static":
        return StaticOffsets(dim, groups, samples)
    if mode == "shift":
        return ShiftedOffsets(dim, shift_width)
    if mode == "random":
        return RandomOffsets(dim, groups, samples, random_spread)
    return OffsetPredictor(dim, groups, samples, trained=mode != "frozen")


class PositionalEncodingGenerator(nn.Module):
    """PEG: a 3x3 depthwise convolution with bias plus residual, which lets offsets depend on the position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C]. Returns the same shape."""
        return x + self.conv(channels_first(x)).permute(0, 2, 3, 1)


def channels_first(x: Tensor) -> Tensor:
    """x: [B, H, W, C], contiguous. Returns [B, C, H, W], as the input of a convolution.

    In half precision it is a view. Otherwise it is contiguous, too: convolutions sum in another order where channels
    are the last axis in memory, and float32 keeps the bits that it has always had.
    """
    x = x.permute(0, 3, 1, 2)
    return x if x.dtype in (torch.bfloat16, torch.float16) else x.contiguous()


fx.wrap("channels_first")


def opens_set(block: int, depth: int, interval: int) -> bool:
    """Whether a stage's ``block`` has new offsets: every ``interval``-th one except the last (released model).

    The only block of a stage has, since it has no earlier offsets to reuse.
    """
    return block % interval == 0 and (block < depth - 1 or depth == 1)
