"""ATMNet: blocks of token mixer and MLP in four stages, with a linear classifier (AAAI Sec. 3.3, Table 10)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models._features import feature_take_indices  # timm exports it nowhere else
from torch import Tensor, nn

from atm.block import Stage
from atm.mixer import check_modes
from atm.mixers import MixerOptions, checked_mixer, needs_peg, refuse_offset_switches, takes_offsets
from atm.offsets import INIT_STD, RANDOM_SPREAD, SHIFT_WIDTH, check_switches, offset_layer


class ATMNet(nn.Module):
    """The backbone with a linear classifier. Everything between stem and head is channels-last, [B, H, W, C].

    dims, depths: one value per stage. mlp_ratios: MLP hidden width / channels, one number or one per stage.
    mixer: a name of ``atm.mixers.MIXERS``. One that takes no offsets makes a network like mode zero's, and refuses
    values for all switches of offsets.
    offsets: "token", "joint" and "axial" predict offsets, "static", "shift", "random" and "frozen" are controls (see
    ``atm.offsets``), "zero" has none. samples, fusion: see ``ActiveTokenMixer``.
    offset_sharing: S, how many channels share one offset, one number or one per stage; None means 1, or all channels
    where ``offsets="token"``, which accepts no other value, as "shift" does not. Mode zero ignores it.
    offset_interval: K, a stage has new offsets at every K-th block except its last; "stage" for one set per stage.
    shift_width, random_spread: in tokens, of modes "shift" (None means 1) and "random" (None means 4).
    peg: whether each stage's PEG precedes the blocks that have new offsets; None means True, except without offsets, as
    in the papers' baseline, unless the mixer needs it. True without offsets puts it before the same blocks. "predictor"
    shows its output to the offset predictors only; the blocks see their input without it.
    img_size: side, or height and width, of the images in pixels, for mixers that are built for maps of one size; all
    others take any size. window_size: side of the windows of "window" and "halo", in tokens.
    drop_path_rate: grows linearly from 0 at the first block to this value at the last.
    drop_rate: dropout before the head. global_pool: "avg", or "" to classify every token.
    stage_norms: for dense prediction, a LayerNorm on every stage's output in place of the final norm and the head.
    Raises ValueError for values that do not fit.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        mlp_ratios: float | Sequence[float],
        offset_sharing: int | Sequence[int] | None = None,
        offset_interval: int | str = "stage",
        offsets: str = "axial",
        samples: int = 1,
        peg: bool | str | None = None,
        fusion: str = "pooled",
        mixer: str = "atm",
        shift_width: int | None = None,
        random_spread: float | None = None,
        img_size: int | Sequence[int] = 224,
        window_size: int = 7,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        stage_norms: bool = False,
    ) -> None:
        super().__init__()
        mlp_ratios = [mlp_ratios] * len(dims) if isinstance(mlp_ratios, (int, float)) else list(mlp_ratios)
        if not len(dims) == len(depths) == len(mlp_ratios):
            raise ValueError("dims, depths and mlp_ratios must have one entry per stage")
        controls = {"shift_width": shift_width, "random_spread": random_spread}
        if takes_offsets(mixer):
            check_modes(offsets, samples, fusion)
        else:
            options = {"offsets": offsets, "samples": samples, "fusion": fusion}
            refuse_offset_switches(mixer, **options, offset_sharing=offset_sharing, **controls)
            offsets = "zero"
        peg = offsets != "zero" or needs_peg(mixer) if peg is None else peg
        if needs_peg(mixer) and peg is not True:
            raise ValueError(f"mixer={mixer!r} has no positions without a PEG, so peg={peg!r} is not valid for it")
        check_switches(offsets, peg, **controls)
        groups = _groups_per_stage(offsets, offset_sharing, dims)
        intervals = _interval_per_stage(offset_interval, depths)
        new_offsets = partial(
            offset_layer,
            offsets,
            samples=samples,
            shift_width=SHIFT_WIDTH if shift_width is None else shift_width,
            random_spread=RANDOM_SPREAD if random_spread is None else random_spread,
        )
        sizes = _map_sizes(img_size, len(dims))
        last = max(1, sum(depths) - 1)
        drop_paths = [drop_path_rate * j / last for j in range(sum(depths))]

        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"{'stage_norms' if stage_norms else 'stages'}.{i}"}
            for i, dim in enumerate(dims)
        ]
        self.stem = nn.Conv2d(in_chans, dims[0], 7, stride=4, padding=2)
        self.stages = nn.Sequential(
            *(
                Stage(
                    in_dim=dims[i - 1] if i else 0,
                    dim=dims[i],
                    depth=depths[i],
                    mlp_ratio=mlp_ratios[i],
                    drop_paths=drop_paths[sum(depths[:i]) :],
                    interval=intervals[i],
                    offsets=partial(new_offsets, groups=groups[i]) if offsets != "zero" else None,
                    peg=peg,
                    mixer=checked_mixer(mixer),
                    options=MixerOptions(offsets, samples, fusion, stage=i, size=sizes[i], window=window_size),
                )
                for i in range(len(dims))
            )
        )
        self.dense = stage_norms
        self.stage_norms = nn.ModuleList(nn.LayerNorm(dim) if stage_norms else nn.Identity() for dim in dims)
        self.norm = nn.Identity() if stage_norms else nn.LayerNorm(dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = nn.Identity()
        self.global_pool = ""
        self.apply(init_weights)
        for block in (block for stage in self.stages for block in stage.blocks):
            if hasattr(block.mixer, "init_weights"):
                block.mixer.init_weights()
        self.reset_classifier(0 if stage_norms else num_classes, "" if stage_norms else global_pool)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """The PEGs' parameters, and those that a mixer names. Optimizers exempt one-dimensional ones (biases, norms,
        static offsets) themselves."""
        exempt = {name for name, _ in self.named_parameters() if ".peg." in name}
        for path, module in self.named_modules():
            if path.endswith(".mixer") and hasattr(module, "no_weight_decay"):
                exempt |= {f"{path}.{name}" for name in module.no_weight_decay()}
        return exempt

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups for layer-wise learning rates: stem, then blocks (``coarse``: stages), then head."""
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^(?:stages|stage_norms)\.(\d+)", None), (r"^norm", (99999,))]}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:downsample|peg)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^stage_norms\.(\d+)", (99999,)),
                (r"^norm", (99999,)),
            ],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes every block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The linear classifier, or an Identity where ``num_classes`` is 0."""
        return self.head

    @torch.jit.ignore
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As PyTorch's; the names of a released checkpoint are converted (``atm.released``)."""
        from atm.released import convert, is_released

        state_dict = convert(state_dict) if is_released(state_dict) else state_dict
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Initialises a new classifier; ``num_classes`` 0 removes it. ``global_pool`` "avg" or "" sets the pooling."""
        if global_pool is not None:
            if global_pool not in ("", "avg"):
                raise ValueError(f"unknown global_pool {global_pool!r} (valid: avg, '')")
            self.global_pool = global_pool
        self.num_classes = num_classes
        if num_classes > 0:
            head = nn.Linear(
                self.num_features, num_classes, device=self.stem.weight.device, dtype=self.stem.weight.dtype
            )
            init_weights(head)
            self.head = head.train(self.training)
        else:
            self.head = nn.Identity()

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Stage outputs, taken before the next downsampling, under timm's interface.

        x: [B, in_chans, H, W]; indices: the last n stages, or a list of stages, None for all; norm: apply the final
        norm to the last stage's output; stop_early: do not compute later stages; output_fmt: "NCHW" or "NHWC".
        With ``stage_norms`` every output is normalised by its own LayerNorm.
        Returns the outputs, preceded by the final features (NHWC) unless ``intermediates_only``.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"unknown output_fmt '{output_fmt}' (valid: NCHW, NHWC)")
        take, last = feature_take_indices(len(self.stages), indices)
        intermediates: list[Tensor] = []
        x = self._embed(x)
        # TorchScript unrolls these loops and knows neither slices of modules nor `break` in them.
        for i, (stage, stage_norm) in enumerate(zip(self.stages, self.stage_norms)):
            if i <= last or not stop_early:
                x = stage(x)
                if i in take:
                    y = stage_norm(x)
                    if norm and i == len(self.stages) - 1:
                        y = self.norm(y)
                    intermediates.append(y.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else y)
        if intermediates_only:
            return intermediates
        return self.norm(x) if last == len(self.stages) - 1 or not stop_early else x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes modules that the outputs of these stages do not need. Returns the stages' absolute indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        # A norm whose output is not used would get no gradient, which distributed training refuses.
        norms = self.stage_norms[: last + 1]
        self.stage_norms = nn.ModuleList(norm if i in take else nn.Identity() for i, norm in enumerate(norms))
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.reset_classifier(0, "")
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """x: [B, in_chans, H, W]. Returns normalised tokens [B, H/32, W/32, C].

        With ``stage_norms`` every stage's norm is called, for hooks and ``torch.fx``; the last output is returned.
        """
        x = self._embed(x)
        if not self.dense:
            return self.norm(self.stages(x))
        normed = x
        for stage, stage_norm in zip(self.stages, self.stage_norms):
            x = stage(x)
            normed = stage_norm(x)
        return normed

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """x: [B, H, W, C]. Returns logits [B, num_classes], or with ``pre_logits`` the classifier's input."""
        if self.global_pool == "avg":
            x = x.mean(dim=(1, 2))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_chans, H, W]. Returns logits [B, num_classes]."""
        return self.forward_head(self.forward_features(x))

    def _embed(self, x: Tensor) -> Tensor:
        return self.stem(x).permute(0, 2, 3, 1)


UNSHARED = {"token": "shares one offset among all channels", "shift": "has fixed parts of channels"}
"""Why these offset modes take no ``offset_sharing``."""


def _groups_per_stage(offsets: str, sharing: int | Sequence[int] | None, dims: Sequence[int]) -> list[int]:
    """|O| per stage: the number of offsets per token, direction and sample."""
    if offsets == "zero":
        return [0] * len(dims)
    if offsets in UNSHARED:
        if sharing is not None:
            raise ValueError(f"offsets={offsets!r} {UNSHARED[offsets]}: leave offset_sharing unset")
        return [1] * len(dims) if offsets == "token" else list(dims)
    sharing = 1 if sharing is None else sharing
    per_stage = [sharing] * len(dims) if isinstance(sharing, int) else list(sharing)
    if len(per_stage) != len(dims) or any(s < 1 or dim % s for s, dim in zip(per_stage, dims)):
        raise ValueError(f"offset_sharing {sharing} must be a divisor of {list(dims)}, or one divisor per stage")
    return [dim // s for s, dim in zip(per_stage, dims)]


def _map_sizes(img_size: int | Sequence[int], stages: int) -> list[tuple[int, int]]:
    """Height and width of every stage's map in tokens, for images of ``img_size`` pixels."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    sizes = [((height - 3) // 4 + 1, (width - 3) // 4 + 1)]  # the stem: 7 x 7, stride 4, padding 2
    for _ in range(stages - 1):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


def _interval_per_stage(interval: int | str, depths: Sequence[int]) -> list[int]:
    if interval == "stage":
        return list(depths)
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise ValueError(f"offset_interval must be a positive whole number or 'stage', not {interval!r}")
    return [interval] * len(depths)


def init_weights(module: nn.Module) -> None:
    """As in the released model: Linear trunc-normal 0.02, Conv2d normal over the fan-out per group, biases 0."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=INIT_STD)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
        nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
