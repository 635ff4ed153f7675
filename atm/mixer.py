"""The Active Token Mixer: recomposed tokens, one FC per branch, and the fusion of the branches (AAAI Sec. 3.2)."""

from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from atm.recompute import recomputable
from atm.sampling import recompose
from atm.sampling.reference import mean as mean_token
from atm.shortcuts import is_plain, reaches, recorded

fx.wrap("recompose")  # torch.fx records the call, which chooses its backend when the graph runs

OFFSET_MODES = ("zero", "token", "joint", "axial", "static", "shift", "random", "frozen")
FUSIONS = ("pooled", "token", "mean")
SAMPLES = (1, 3)
ONE_READ = ("zero", "shift")
"""Offset modes in which three samples would read one token, and their three FCs would be equal to one."""
FOLD = 3.0
"""From this many tokens per channel, multiplying by one matrix per image is less work than the FCs and ``proj``."""


class ActiveTokenMixer(nn.Module):
    """One ATM layer: ``proj(fuse(FC_w(sample_W(x)), FC_h(sample_H(x)), FC_c(x)))``.

    dim, out_dim: channels in and out (equal in the backbone).
    offsets: "joint" recomposes once with two-dimensional offsets (two-way fusion with the identity), "zero" keeps the
    FCs and reads every token at its own position, all others recompose along each axis. These differ in where their
    offsets come from (``atm.offsets``), which the mixer does not see.
    samples: tokens read per channel and direction, each with its own FC, summed into the branch with one bias
    (AAAI Fig. 2; the construction is inferred from the printed cost).
    fusion: "pooled" (released model), "token" (AAAI Eq. 4, no ``proj``) or "mean" (equal weights, no learned fusion).
    Raises ValueError for any other name or combination.
    """

    joint: Final[bool]  # TorchScript then compiles only the branches that exist
    widths: Final[list[int]]

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        offsets: str = "axial",
        samples: int = 1,
        fusion: str = "pooled",
    ) -> None:
        super().__init__()
        check_modes(offsets, samples, fusion)
        out_dim = out_dim or dim
        self.samples = samples
        self.joint = offsets == "joint"
        if self.joint:
            self.fc_j = nn.Linear(samples * dim, out_dim)
        else:
            self.fc_w = nn.Linear(samples * dim, out_dim)
            self.fc_h = nn.Linear(samples * dim, out_dim)
        self.fc_c = nn.Linear(dim, out_dim, bias=False)
        self.widths = [samples * dim] * (1 if self.joint else 2) + [dim]
        self.fusion = _FUSION_MODULES[fusion](out_dim, 2 if self.joint else 3)
        self.proj = nn.Identity() if fusion == "token" else nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: [B, H, W, 2 * samples * G], horizontal half first, or None for none.

        Returns [B, H, W, out_dim].
        """
        # FLOPs are counted on the formula, and TorchScript does not know our operator.
        if torch.jit.is_scripting() or recorded(x) or x.is_meta:
            return self.proj(self.fusion(self._branches(x, offsets)))
        else:
            return self._mix(x, offsets)

    def _branches(self, x: Tensor, offsets: Tensor | None) -> list[Tensor]:
        """The branches of the paper's formula: each FC applied to the tokens of its branch."""
        if offsets is None:
            repeated = torch.cat([x] * self.samples, dim=-1)
            tokens = [repeated, repeated, x]
        else:
            tokens = recompose(x, offsets, self.joint, self.samples)[0].split(self.widths, dim=-1)
        if self.joint:
            return [self.fc_j(tokens[0]), self.fc_c(tokens[-1])]
        else:
            return [self.fc_w(tokens[0]), self.fc_h(tokens[1]), self.fc_c(tokens[2])]

    @torch.jit.unused
    def _mix(self, x: Tensor, offsets: Tensor | None) -> Tensor:
        """Computes the formula with less work.

        The weights of a fusion of whole branches depend on the branches' means only, and the mean of an FC's outputs is
        the FC of the inputs' mean. So the weights are known before any branch is computed. On a large map they multiply
        the FCs' weights in place of the branches, and FCs and ``proj`` become one matrix per image.
        """
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x = recomputable(x.to(dtype), Tensor.to, x, dtype) if x.dtype != dtype else x  # once for all FCs
        fcs = [self.fc_j, self.fc_c] if self.joint else [self.fc_w, self.fc_h, self.fc_c]
        if (offsets is None and self.samples > 1) or not self._is_plain(fcs):
            return self.proj(self.fusion(self._branches(x, offsets)))
        if offsets is None:
            tokens, means = x, mean_token(x).repeat(1, len(self.widths))
        else:
            tokens, means = recompose(x, offsets, self.joint, self.samples)
            recomputable(tokens, recompose, x, offsets, self.joint, self.samples)
        weight, bias = torch.cat([fc.weight for fc in fcs], dim=1), _total([fc.bias for fc in fcs[:-1]])
        shares = self.fusion.weights(functional.linear(means.to(weight.dtype), weight, bias)).unbind(-1)

        batch, height, width, channels = x.shape
        if not reaches(height * width, FOLD * channels):
            rows = tokens.flatten(0, 2)  # an FC copies a slice of a four-dimensional tensor, but not of a matrix
            parts = [rows] * len(fcs) if tokens is x else rows.split(self.widths, dim=-1)
            branches = [fc(part).unflatten(0, (batch, height, width)) for fc, part in zip(fcs, parts)]
            return self.proj(_weighted_sum(branches, shares))
        scaled = [share.unsqueeze(-1) * fc.weight for share, fc in zip(shares, fcs)]
        weight = self.proj.weight @ (_total(scaled) if tokens is x else torch.cat(scaled, dim=-1))
        bias = self.proj(_total([share * fc.bias for share, fc in zip(shares, fcs[:-1])]))
        mixed = torch.baddbmm(bias.unsqueeze(1), tokens.flatten(1, 2), weight.transpose(1, 2))
        return mixed.unflatten(1, (height, width))

    @torch.jit.unused
    def _is_plain(self, fcs: list[nn.Linear]) -> bool:
        """Whether using the layers' weights equals calling the layers."""
        return is_plain(self.fusion, PooledFusion, MeanFusion) and all(
            is_plain(layer, nn.Linear) for layer in (*fcs, self.proj)
        )


class PooledFusion(nn.Module):
    """One weight per image, channel and branch, from the pooled sum of the branches (released model)."""

    def __init__(self, dim: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.fc1 = nn.Linear(dim, dim // 4)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim // 4, branches * dim)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """branches: [B, H, W, C] each. Returns [B, H, W, C]."""
        pooled = _total(branches).mean(dim=(1, 2))
        weights = self.weights(pooled)
        return _weighted_sum(branches, [weights[..., i] for i in range(self.branches)])

    def weights(self, pooled: Tensor) -> Tensor:
        """pooled: [B, C], the mean over the map of the branches' sum. Returns [B, C, branches], which sum to 1."""
        scores = self.fc2(self.act(self.fc1(pooled)))
        return scores.reshape(pooled.shape[0], pooled.shape[1], self.branches).softmax(dim=-1)


class TokenFusion(nn.Module):
    """One weight per token, channel and branch, from the sum of the branches (AAAI Eq. 4 as printed)."""

    def __init__(self, dim: int, branches: int) -> None:
        super().__init__()
        self.fcs = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(branches))

    def forward(self, branches: list[Tensor]) -> Tensor:
        """branches: [B, H, W, C] each. Returns [B, H, W, C]."""
        total = _total(branches)
        scores: list[Tensor] = []
        for fc in self.fcs:
            scores.append(fc(total))
        weights = torch.stack(scores, dim=-1).softmax(dim=-1)
        return _total([b * weights[..., i].to(b.dtype) for i, b in enumerate(branches)])


class MeanFusion(nn.Module):
    """The same weight for every branch: the control for the pooled fusion, which sees a global mean of the image."""

    def __init__(self, dim: int, branches: int) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, branches: list[Tensor]) -> Tensor:
        """branches: [B, H, W, C] each. Returns [B, H, W, C]."""
        return _total(branches) / len(branches)

    def weights(self, pooled: Tensor) -> Tensor:
        """pooled: [B, C]. Returns [B, C, branches], as ``PooledFusion.weights`` does."""
        return pooled.new_full((pooled.shape[0], pooled.shape[1], self.branches), 1 / self.branches)


_FUSION_MODULES = {"pooled": PooledFusion, "token": TokenFusion, "mean": MeanFusion}


def check_modes(offsets: str, samples: int, fusion: str) -> None:
    """Raises ValueError, which lists the valid choices, for an unknown offset mode, sample count or fusion."""
    for name, value, valid in (
        ("offsets", offsets, OFFSET_MODES),
        ("samples", samples, SAMPLES),
        ("fusion", fusion, FUSIONS),
    ):
        if value not in valid:
            raise ValueError(f"unknown {name} {value!r} (valid: {', '.join(map(str, valid))})")
    if offsets in ONE_READ and samples != 1:
        valid = ", ".join(mode for mode in OFFSET_MODES if mode not in ONE_READ)
        raise ValueError(f"offsets={offsets!r} reads one token, not {samples} (samples=3 is valid for: {valid})")


def _weighted_sum(branches: list[Tensor], weights: list[Tensor]) -> Tensor:
    """The sum of the branches [B, H, W, C], each multiplied by its weights [B, C]."""
    # Of a softmax over branches they are every third number in memory, which multiplies seven times slower on a CPU.
    spread = [w.contiguous().unsqueeze(1).unsqueeze(1) for w in weights]
    return _total([b * w.to(b.dtype) for b, w in zip(branches, spread)])


def _total(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
