"""The Active Token Mixer: recomposed tokens, one FC per branch, and the fusion of the branches (AAAI Sec. 3.2)."""

from typing import Final

import torch
from torch import Tensor, nn

from atm.sampling import sample_axis, sample_joint

OFFSET_MODES = ("zero", "token", "joint", "axial")
FUSIONS = ("pooled", "token", "mean")
SAMPLES = (1, 3)


class ActiveTokenMixer(nn.Module):
    """One ATM layer: ``proj(fuse(FC_w(sample_W(x)), FC_h(sample_H(x)), FC_c(x)))``.

    dim, out_dim: channels in and out (equal in the backbone).
    offsets: "axial" and "token" recompose along each axis ("token" with one offset for all channels: a matter of the
    predictor, not of the mixer), "joint" recomposes once with two-dimensional offsets (two-way fusion with the
    identity), "zero" keeps the FCs and reads every token at its own place.
    samples: tokens read per channel and direction, each with its own FC, summed into the branch with one bias
    (AAAI Fig. 2, the construction inferred from the printed cost).
    fusion: "pooled" (released model), "token" (AAAI Eq. 4, no ``proj``) or "mean" (equal weights, no learned fusion).
    Raises ValueError for a name or combination outside these.
    """

    joint: Final[bool]  # TorchScript then compiles only the branches that exist

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
        self.fusion = _FUSION_MODULES[fusion](out_dim, 2 if self.joint else 3)
        self.proj = nn.Identity() if fusion == "token" else nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: [B, H, W, 2 * samples * G], horizontal half first, or None to stay in place.

        Returns [B, H, W, out_dim].
        """
        dx: Tensor | None = None
        dy: Tensor | None = None
        if offsets is not None:
            dx, dy = offsets.chunk(2, dim=-1)
        if self.joint:
            branches = [self.fc_j(_recompose(x, dy, dx, self.samples)), self.fc_c(x)]
        else:
            w = self.fc_w(_recompose(x, None, dx, self.samples))
            h = self.fc_h(_recompose(x, dy, None, self.samples))
            branches = [w, h, self.fc_c(x)]
        return self.proj(self.fusion(branches))


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
        weights = self.fc2(self.act(self.fc1(pooled))).reshape(pooled.shape[0], 1, 1, pooled.shape[1], self.branches)
        weights = weights.softmax(dim=-1)
        return _total([b * weights[..., i].to(b.dtype) for i, b in enumerate(branches)])


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
    """The same weight for every branch: the control without the fusion's global summary of the image."""

    def __init__(self, dim: int, branches: int) -> None:
        super().__init__()

    def forward(self, branches: list[Tensor]) -> Tensor:
        """branches: [B, H, W, C] each. Returns [B, H, W, C]."""
        return _total(branches) / len(branches)


_FUSION_MODULES = {"pooled": PooledFusion, "token": TokenFusion, "mean": MeanFusion}


def check_modes(offsets: str, samples: int, fusion: str) -> None:
    """Refuses unknown offset modes, sample counts and fusions, naming the valid ones. Raises ValueError."""
    for name, value, valid in (
        ("offsets", offsets, OFFSET_MODES),
        ("samples", samples, SAMPLES),
        ("fusion", fusion, FUSIONS),
    ):
        if value not in valid:
            raise ValueError(f"unknown {name} {value!r} (valid: {', '.join(map(str, valid))})")
    if offsets == "zero" and samples != 1:
        raise ValueError(f"offsets='zero' reads one token, not {samples} (samples=3 goes with: axial, token, joint)")


def _recompose(x: Tensor, dy: Tensor | None, dx: Tensor | None, samples: int) -> Tensor:
    """The tokens a branch reads, side by side: one FC over them is the sum of one FC each, with one bias.

    x: [B, H, W, C]; dy, dx: [B, H, W, samples * G], None for an axis the branch does not move along.
    Returns [B, H, W, samples * C].
    """
    tokens: list[Tensor] = []
    for i in range(samples):
        if dy is not None and dx is not None:
            token = sample_joint(x, dy.chunk(samples, dim=-1)[i], dx.chunk(samples, dim=-1)[i])
        elif dx is not None:
            token = sample_axis(x, dx.chunk(samples, dim=-1)[i], 2)
        elif dy is not None:
            token = sample_axis(x, dy.chunk(samples, dim=-1)[i], 1)
        else:
            token = x
        tokens.append(token)
    return tokens[0] if samples == 1 else torch.cat(tokens, dim=-1)


def _total(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
