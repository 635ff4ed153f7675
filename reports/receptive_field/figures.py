"""The maps of receptive fields in a row, and the share of the gradient by distance beside accuracy by distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.reach import DRAWN
from reports.receptive_field.measured import DIRECTIONS, SHARES, STATES

if TYPE_CHECKING:
    from reports.receptive_field.page import FieldsOfArm

PANEL, ACROSS = 1.45, 6  # inches of a map, and how many stand side by side
COLOURS = "cividis"
DASHES: dict[str, Any] = {"before": (0, (2, 1.5)), "after": "-"}


def fields(arms: Sequence[FieldsOfArm]) -> tuple[Any, Any, str, str]:
    """A map per arm, fresh above trained: the mean over seeds."""
    import numpy as np
    import pandas as pd

    states = [state for state in STATES if any(state in arm.states for arm in arms)]
    blocks = -(-len(arms) // ACROSS)
    columns = min(ACROSS, len(arms))
    canvas = style.new_figure(columns * PANEL + 0.25, blocks * len(states) * (PANEL + 0.25))
    grid = canvas.subplots(blocks * len(states), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    records = []
    for number, arm in enumerate(arms):
        for place, state in enumerate(state for state in states if state in arm.states):
            axes = grid[len(states) * (number // ACROSS) + place][number % ACROSS]
            axes.set_visible(True)
            mean = np.mean([field.maps[state].astype(float) for field in arm.fields], axis=0)
            axes.imshow(np.sqrt(mean / mean.max()), cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if place == 0:
                axes.set_title(arm.label, fontsize=8)
            if number % ACROSS == 0:
                axes.set_ylabel(STATES[state], fontsize=8)
            for direction in DIRECTIONS[:2]:
                along = mean.sum(axis=0 if direction == "horizontal" else 1)
                records += [
                    {
                        "arm": arm.label,
                        "state": STATES[state],
                        "direction": direction,
                        "px": px,
                        "share": round(each, 8),
                    }
                    for px, each in enumerate(along.tolist())
                ]
    canvas.subplots_adjust(left=0.06, right=0.99, top=0.93, bottom=0.01, wspace=0.06, hspace=0.16)
    caption = (
        "The share of every pixel in the gradient of the centre token, mean over images and seeds; the square root of "
        "it, each map scaled to its own highest pixel (yellow). The CSV file has the sums along columns and rows."
    )
    return canvas, pd.DataFrame(records), "Receptive fields", caption


def by_distance(arms: Sequence[FieldsOfArm]) -> tuple[Any, Any, str, str]:
    """The share of the gradient within a distance, and below it accuracy at that distance where a run has it."""
    import pandas as pd
    from matplotlib.lines import Line2D

    curve = _curves(arms)
    ways = DIRECTIONS[:2]
    canvas = style.new_figure(7.2, 2.9 if curve.empty else 5.2)
    grid = canvas.subplots(1 if curve.empty else 2, len(ways), sharex=True, sharey="row", squeeze=False)
    looks, records = style.styles_of([arm.label for arm in arms]), []
    for axes, direction in zip(grid[0], ways):
        for arm in arms:
            for state in arm.states:
                points = _mean([field.by_distance(state, direction) for field in arm.fields])
                axes.plot(
                    *points, color=looks[arm.label].colour, linestyle=DASHES[state], linewidth=1.3,
                    label=arm.label if state == arm.states[-1] else None,
                )  # fmt: skip
                records += [
                    {"arm": arm.label, "curve": f"gradient, {STATES[state]}", "direction": direction,
                     "distance": distance, "percent": round(share, 4)}
                    for distance, share in zip(*points)
                ]  # fmt: skip
        for share in SHARES:
            axes.axhline(share, color=style.GREY, linewidth=0.6, linestyle=(0, (1, 2)))
        axes.set_title(direction.capitalize(), loc="left", fontweight="bold")
        axes.set_ylim(0, 102)
    grid[0][0].set_ylabel("Gradient within (%)")
    if not curve.empty:
        for axes, direction in zip(grid[1], ways):
            for arm in arms:
                of_arm = curve[(curve["arm"] == arm.label) & curve["direction"].isin([direction, "any"])]
                look = looks[arm.label]
                axes.plot(of_arm["distance"], of_arm["percent"], color=look.colour, marker=look.marker, markersize=4)
            axes.set_ylim(0, 102)
        grid[1][0].set_ylabel("Accuracy (%)")
        records += curve.assign(curve="accuracy").to_dict("records")
    for axes in grid[-1]:
        axes.set_xlabel("Distance (px)")
        axes.set_xlim(left=0)
    handles, labels = grid[0][0].get_legend_handles_labels()
    states = [state for state in STATES if any(state in arm.states for arm in arms)]
    handles += [Line2D([], [], color=style.GREY, linestyle=DASHES[state], linewidth=1.3) for state in states]
    labels += [STATES[state] for state in states]
    canvas.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.08, 1.0), ncols=4, frameon=False, fontsize=7.5)
    top = 1 - (0.2 * (1 + (len(labels) - 1) // 4) + 0.3) / canvas.get_figheight()
    canvas.subplots_adjust(left=0.09, right=0.99, top=top, bottom=0.1, wspace=0.08, hspace=0.12)
    caption = (
        "Above, the share of the gradient of the centre token that lies within a distance along the row (horizontal) "
        "or the column (vertical): solid after training, dashed before, mean over seeds; dotted: 50 and 90 %."
    )
    if not curve.empty:
        caption += " Below, accuracy of the same runs at that distance, as their reports have it."
    return canvas, pd.DataFrame(records), "Gradient and accuracy by distance", caption


def _mean(curves: Sequence[tuple[Any, Any]]) -> tuple[list[float], list[float]]:
    """Distances and the mean share in per cent; all fields of an arm have images of one size."""
    import numpy as np

    return curves[0][0].tolist(), (100 * np.mean([share for _, share in curves], axis=0)).tolist()


def _curves(arms: Sequence[FieldsOfArm]) -> Any:
    """Accuracy by arm, direction and distance over the tokens of all seeds, where these are not too few."""
    import pandas as pd

    rows = [{"arm": arm.label, **row} for arm in arms for field in arm.fields for row in field.about["curve"]]
    frame = pd.DataFrame(rows, columns=["arm", "direction", "distance", "correct", "count"])
    summed = frame[frame["count"] > 0].groupby(["arm", "direction", "distance"], as_index=False).sum()
    of_all = summed.groupby(["arm", "direction"])["count"].transform("sum")
    summed = summed[summed["count"] >= DRAWN * of_all]
    return summed.assign(percent=(100 * summed["correct"] / summed["count"]).round(4))
