"""Optimizer and averaged weights of a run, from timm's parts."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from errors import ConfigError
from experiments.schema import Train

FUSED_DEVICES = ("cpu", "cuda")
IMPLEMENTATION = ("foreach", "fused")  # optimizer options that change how a step is computed, not its result


def peak_lr(train: Train) -> float:
    """The learning rate after warm-up, scaled linearly from the batch it is stated for."""
    return train.lr if train.lr_batch is None else train.lr * train.batch_size / train.lr_batch


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: without decay biases, other 1-D parameters and what any submodule's ``no_weight_decay``
    names (PEG); with decay the rest.

    timm asks the outermost module only, and a backbone inside another model would lose its list.
    """
    spared = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if callable(listed := getattr(module, "no_weight_decay", None))
        for name in listed()
    }
    return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)  # type: ignore[no-any-return]


def parameter_groups(model: nn.Module, train: Train) -> list[dict[str, Any]]:
    """The optimizer's groups as ``train.no_decay`` and ``train.head_lr_scale`` say.

    ``norm`` spares weights whose name in the reference implementation of dense models contains "norm". There the norms
    of offset predictors and of heads are numbered, not named, and have decay as PEG and biases do.
    """
    if train.no_decay == "vectors":
        groups = decay_groups(model, train.weight_decay)
    else:
        learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        norms = {name for name in learned if "norm" in name.replace(".offsets.norm.", ".")}
        spared = norms if train.no_decay == "norm" else set()
        groups = [
            {"params": [learned[name] for name in learned if name in names], "weight_decay": decay}
            for names, decay in ((spared, 0.0), (learned.keys() - spared, train.weight_decay))
            if names
        ]
    return groups if train.head_lr_scale == 1.0 else _scaled_heads(model, groups, train.head_lr_scale)


def _scaled_heads(model: nn.Module, groups: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    """Each group as two, of which the one outside ``model.backbone`` learns ``scale`` times as fast."""
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        raise ConfigError(f"train.head_lr_scale={scale}: this model has no backbone that its head stands on")
    inside = {id(weight) for weight in backbone.parameters()}
    halves = []
    for group in groups:
        for of_backbone, more in ((True, {}), (False, {"lr_scale": scale})):
            chosen = [weight for weight in group["params"] if (id(weight) in inside) == of_backbone]
            halves.append({**group, "params": chosen, **more})
    return [half for half in halves if half["params"]]


def build_optimizer(model: nn.Module, train: Train, groups: list[dict[str, Any]] | None = None) -> Optimizer:
    """The optimizer over ``groups`` (``parameter_groups`` unless a task has others) at the peak learning rate.

    A step is a single fused kernel where PyTorch has one for this optimizer.
    """
    groups = parameter_groups(model, train) if groups is None else groups
    fused = {"fused": True} if _has_fused_step(train.optimizer, model) else {}
    return create_optimizer_v2(  # type: ignore[no-any-return]
        model, train.optimizer, lr=peak_lr(train), weight_decay=0.0, param_group_fn=lambda _: groups, **fused
    )


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads a saved state and keeps this process's implementation; PyTorch would take over that of the writer."""
    own = {key: optimizer.defaults[key] for key in IMPLEMENTATION if key in optimizer.defaults}
    optimizer.load_state_dict({**state, "param_groups": [{**group, **own} for group in state["param_groups"]]})


def _has_fused_step(name: str, model: nn.Module) -> bool:
    kind = get_optimizer_class(name.lower().rpartition("_")[2], bind_defaults=False)  # lookahead_adamw steps as adamw
    return kind in (Adam, AdamW, SGD) and all(p.device.type in FUSED_DEVICES for p in model.parameters())


def build_ema(model: nn.Module, train: Train) -> ModelEmaV3 | None:
    return None if train.ema_decay is None else ModelEmaV3(model, decay=train.ema_decay)
