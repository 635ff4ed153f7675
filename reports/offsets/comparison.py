"""The arms of a sweep side by side: their offsets by depth, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reports.figures import lines, style
from reports.offsets import DIRECTIONS
from reports.offsets.depth import QUANTITIES, from_zero, layer_axis
from reports.offsets.measured import Measured
from results.statistics.estimates import mean_interval

if TYPE_CHECKING:
    import pandas as pd

MEASURES = (*QUANTITIES, "mean_abs_px", "variation", "nothing")  # columns of statistics.csv that are averaged
BY = ["arm", "layer", "direction", "scope"]


def over_seeds(plan: Mapping[str, Any], measured: Mapping[str, Measured]) -> pd.DataFrame:
    """Per arm, layer, direction and scope: mean, lowest and highest seed of every measure, half of the interval of its
    mean, and n, the number of seeds.

    measured: by run id; runs that are missing there are left out.
    """
    import pandas as pd

    statistics = [
        measured[run["run"]].statistics.assign(arm=run["arm"], seed=run["seed"])
        for run in plan["runs"]
        if run["run"] in measured
    ]
    runs = pd.concat(statistics, ignore_index=True)
    order = {arm["name"]: place for place, arm in enumerate(plan["arms"])}
    runs = runs.sort_values("seed", kind="stable").sort_values("arm", key=lambda arms: arms.map(order), kind="stable")
    named = {
        f"{measure}_{statistic}": (measure, function)
        for measure in MEASURES
        for statistic, function in (("mean", "mean"), ("low", "min"), ("high", "max"), ("half", _half))
    }
    return runs.groupby(BY, sort=False).agg(n=("seed", "nunique"), **named).round(6).reset_index()  # type: ignore[call-overload, no-any-return]


def _half(values: Iterable[float]) -> float:
    half = mean_interval(dict(enumerate(values))).half
    return math.nan if half is None else half


def layers_of(summary: pd.DataFrame) -> list[str]:
    """All layers in which some arm predicts, by depth."""
    return sorted(set(summary["layer"]), key=lambda name: [int(part) for part in name.split("_")[1:]])


def draw(plan: Mapping[str, Any], summary: pd.DataFrame) -> tuple[Any, pd.DataFrame, str, str]:
    """Over all tokens, a row per direction; the figure, its data, title and caption."""
    canvas = style.new_figure(10.2, 4.9)
    grid = canvas.subplots(len(DIRECTIONS), len(QUANTITIES), sharex=True, sharey="col")
    layers, labels = layers_of(summary), {arm["name"]: arm["label"] for arm in plan["arms"]}
    styles = style.styles_of(list(labels))
    drawn = summary[summary["scope"] == "all"]
    arms = list(dict.fromkeys(drawn["arm"]))
    for axes_row, direction in zip(grid, DIRECTIONS):
        for axes, (column, title) in zip(axes_row, QUANTITIES.items()):
            for place, arm in enumerate(arms):
                of_arm = drawn[(drawn["arm"] == arm) & (drawn["direction"] == direction)].set_index("layer")
                mean, half = (
                    of_arm[f"{column}_{statistic}"].reindex(layers).to_numpy(float) for statistic in ("mean", "half")
                )
                # beside one another, or the bars of different arms could not be told apart
                xs = [number + 0.055 * (place - (len(arms) - 1) / 2) for number in range(len(layers))]
                axes.errorbar(
                    xs, mean, yerr=half, color=styles[arm].colour, marker=styles[arm].marker,
                    linestyle=styles[arm].dash, linewidth=1.4, markersize=4.6, elinewidth=1.0, capsize=1.8,
                    markeredgecolor="white", markeredgewidth=0.5, label=labels[arm],
                )  # fmt: skip
            from_zero(axes)
            layer_axis(axes, layers)
            if direction == DIRECTIONS[0]:
                axes.set_title(title, loc="left")
                axes.set_xlabel("")
        axes_row[0].set_ylabel(direction.capitalize(), fontweight="bold")
    canvas.text(0.995, -0.03, lines.axis_words(drawn["n"], "bars").strip(), ha="right", fontsize=8, color=style.GREY)
    canvas.subplots_adjust(left=0.065, right=0.995, top=0.86, bottom=0.12, wspace=0.22, hspace=0.14)
    handles, names = grid[0][0].get_legend_handles_labels()
    canvas.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.06, 1.005), ncols=6, frameon=False, handlelength=3.2
    )
    caption = (
        f"Over all tokens of all images: mean over finished seeds; {lines.seed_words(drawn['n'], 'bars')}. Markers of "
        "one layer stand side by side for readability. Arms without offsets are not drawn."
    )
    return canvas, summary, "Offsets by depth and arm", caption
