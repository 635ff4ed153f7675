"""How far the centre token reads, layer by layer, over all it could reach (AAAI Fig. 3, 6, 7; v1 Fig. 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.offsets import DIRECTIONS
from reports.offsets.measured import Measured

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = 4
PANEL = (2.45, 1.55)  # inches
# told apart in grey: a filled area and a dashed outline
LOOKS: dict[str, dict[str, Any]] = {
    "horizontal": {"fill": True, "facecolor": "#9ecae1", "edgecolor": "#3182bd", "linewidth": 0.8},
    "vertical": {"fill": False, "edgecolor": style.INK, "linewidth": 1.1, "linestyle": (0, (3, 1.2))},
}


def draw(measured: Measured) -> tuple[Any, pd.DataFrame, str, str]:
    """The figure, its data, title and caption."""
    import pandas as pd

    layers = measured.layers
    columns = min(COLUMNS, len(layers))
    rows = math.ceil(len(layers) / columns)
    width, height = columns * (PANEL[0] + 0.35), rows * (PANEL[1] + 0.75) + 0.2
    canvas = style.new_figure(width, height)
    grid = canvas.subplots(rows, columns, squeeze=False)
    drawn = []
    for number, layer in enumerate(layers):
        axes = grid[number // columns][number % columns]
        drawn.append(_panel(axes, measured, layer))
        if number % columns == 0:
            axes.set_ylabel("Reads (%)\nper quarter token")
        if number + columns >= len(layers):
            axes.set_xlabel("Offset (tokens)")
    for number in range(len(layers), rows * columns):
        grid[number // columns][number % columns].set_axis_off()
    canvas.subplots_adjust(
        left=0.6 / width, right=0.99, bottom=0.45 / height, top=1 - 0.62 / height, hspace=0.75 / PANEL[1], wspace=0.24
    )
    _legend(canvas, height)
    about = measured.about
    caption = (
        f"Offsets of the centre token over {about['images']:,} images, each counted for every channel that reads with "
        "it: the share of a direction's reads in each quarter of a token. The horizontal axis is all that the centre "
        "token can reach at the layer's resolution; reads outside are in the line above each panel (horizontal, "
        "vertical) and not drawn. Positive is to the right and down. "
        "layer_i_j: block j of stage i; blocks that are not shown reuse the offsets of the block before."
    )
    return canvas, pd.concat(drawn, ignore_index=True), "Offsets of the centre token", caption


def _panel(axes: Axes, measured: Measured, layer: str) -> pd.DataFrame:
    """Draws a layer and returns its bins with the share of reads in each."""
    import numpy as np

    about = next(entry for entry in measured.about["layers"] if entry["layer"] == layer)
    bins = measured.histograms[measured.histograms["layer"] == layer].copy()
    bins["share"] = (100 * bins["reads"] / bins.groupby("direction")["reads"].transform("sum")).round(4)
    limits, outside = [], []
    for direction in DIRECTIONS:
        of_direction = bins[bins["direction"] == direction]
        inside = of_direction[np.isfinite(of_direction["left"]) & np.isfinite(of_direction["right"])]
        edges = np.append(inside["left"].to_numpy(), inside["right"].iloc[-1])
        axes.stairs(inside["share"].to_numpy(), edges, **LOOKS[direction])
        limits.append((edges[0], edges[-1]))
        outside.append(f"{100 * (1 - inside['reads'].sum() / of_direction['reads'].sum()):.1f} %")
    rows, columns = about["map"]
    axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.08)
    axes.xaxis.set_major_locator(_ticks())
    axes.set_title(layer, loc="left", fontweight="bold", pad=17)
    axes.annotate(
        f"{rows} × {columns} tokens of {about['stride']} px; outside {', '.join(outside)}",
        (0, 1), xycoords="axes fraction", xytext=(0, 6), textcoords="offset points", fontsize=7, color=style.GREY,
    )  # fmt: skip
    return bins


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5, integer=True)


def _legend(canvas: Any, height: float) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(label=direction, **LOOKS[direction]) for direction in DIRECTIONS]
    canvas.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=8.5,
        handlelength=2.4, borderaxespad=0.0,
    )  # fmt: skip
