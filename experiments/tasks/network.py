"""From the model section of a config to timm's keyword arguments, for every task alike."""

from __future__ import annotations

from typing import Any

from experiments.schema import Model


def backbone(model: Model) -> tuple[str, dict[str, Any]]:
    """timm's name of the variant and the arguments that make it the arm."""
    return f"atmnet_{model.name}", {
        "offsets": model.offsets,
        "samples": model.samples,
        "peg": model.peg,
        "offset_sharing": model.offset_sharing,
        "offset_interval": model.offset_interval,
        "fusion": model.fusion,
        "drop_path_rate": model.drop_path,
    }
