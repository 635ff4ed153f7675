"""How far, how differently per channel, and how often beyond the map a model reads, against depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.offsets import DIRECTIONS
from reports.offsets.measured import Measured

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {  # column of statistics.csv: title of its panel
    "mean_abs": "Mean |offset| (tokens)",
    "mean_abs_share": "Mean |offset| (% of extent)",
    "spread": "Spread over channels (tokens)",
    "outside": "Reads outside the map (%)",
}
SCOPES: dict[str, tuple[str, str, str]] = {
    "all": (style.INK, "o", "all tokens"),
    "centre": ("#d95f02", "s", "centre token"),
}
DASHES: dict[str, Any] = {"horizontal": "-", "vertical": (0, (3, 1.2))}


def draw(measured: Measured) -> tuple[Any, pd.DataFrame, str, str]:
    """The figure, its data, title and caption."""
    canvas = style.new_figure(9.8, 2.6)
    panels = canvas.subplots(1, len(QUANTITIES))
    layers, statistics = measured.layers, measured.statistics
    for axes, (column, title) in zip(panels, QUANTITIES.items()):
        for scope, (colour, marker, _) in SCOPES.items():
            for direction in DIRECTIONS:
                chosen = statistics[(statistics["scope"] == scope) & (statistics["direction"] == direction)]
                values = chosen.set_index("layer")[column].reindex(layers)
                axes.plot(
                    range(len(layers)), values, color=colour, marker=marker, linestyle=DASHES[direction],
                    markersize=4.2, linewidth=1.4, markerfacecolor=colour if direction == "horizontal" else "white",
                )  # fmt: skip
        axes.set_title(title, loc="left")
        from_zero(axes)
        layer_axis(axes, layers)
    canvas.subplots_adjust(left=0.04, right=0.995, top=0.8, bottom=0.22, wspace=0.24)
    _legend(canvas)
    caption = (
        "Layers by depth: solid with filled markers is horizontal, dashed with open ones vertical. Extent is the "
        "map's width or height in tokens."
    )
    columns = ["layer", "direction", "scope", *QUANTITIES]
    return canvas, statistics[columns], "Offsets by depth", caption


def layer_axis(axes: Any, layers: list[str]) -> None:
    """Layers as ``3_1`` under the axis, upright where they would touch."""
    axes.set_xticks(range(len(layers)), [name.removeprefix("layer_") for name in layers])
    if len(layers) > 6:
        axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlim(-0.35, len(layers) - 0.65)
    axes.set_xlabel("Layer")


def from_zero(axes: Any) -> None:
    """With room for the markers of values that are 0."""
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.035 * top, top)


def _legend(canvas: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=colour, marker=marker, linestyle=DASHES[direction], markersize=4.2, linewidth=1.4,
            markerfacecolor=colour if direction == "horizontal" else "white", label=f"{scope_label}, {direction}",
        )
        for colour, marker, scope_label in SCOPES.values()
        for direction in DIRECTIONS
    ]  # fmt: skip
    canvas.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.03, 1.03), ncols=4, frameon=False, fontsize=8,
        handlelength=3,
    )  # fmt: skip
