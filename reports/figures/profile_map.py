"""What each arm reaches in each probe, as a map of numbers: arms downwards, probes across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures import style

if TYPE_CHECKING:
    from reports.content.profile import ProfileLine
    from reports.specification import Profile

ROW, COLUMN, LABEL = 0.2, 0.56, 0.063  # inches of a row, of a column, and of a letter of a label
NUMBER = 9.0  # size of the numbers, points
COLOURS = "YlGnBu"  # ever darker, so that it is told apart in all kinds of colour blindness, and in grey
DARK = 0.2  # relative luminance below which white is read better than ink
OTHER_RATE = "*"


def draw(spec: Profile, lines: Sequence[ProfileLine]) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None where nothing has been measured."""
    import pandas as pd
    from matplotlib import colormaps

    from reports.content.profile import best

    rows = [line for line in lines if not line.of]
    found = [[best(lines, line.part, line.arm, probe) for probe in spec.probes] for line in rows]
    if not any(cell for of_row in found for cell in of_row):
        return None
    labels, tiles = LABEL * max(len(line.label) for line in rows), COLUMN * len(spec.probes)
    parts = [line.part.label for line in rows]
    canvas = style.new_figure(labels + tiles, ROW * (len(rows) + len(set(parts))))  # a line above each part names it
    axes = canvas.add_axes((labels / (labels + tiles), 0, tiles / (labels + tiles), 1))
    colours, place, records = colormaps[COLOURS], 0, []
    for number, line in enumerate(rows):
        if number == 0 or parts[number - 1] != parts[number]:
            axes.text(-0.08, place + 0.55, line.part.label, ha="right", va="center", fontsize=8, fontweight="bold")
            place += 1
        axes.text(-0.08, place + 0.5, line.label, ha="right", va="center", fontsize=8)
        for column, ((name, probe), cell) in enumerate(zip(spec.probes.items(), found[number])):
            share = 0.0 if cell is None else max(0.0, (cell[0] - probe.chance) / (100 - probe.chance))
            face = "white" if cell is None else colours(share)
            axes.add_patch(_tile(column, place, face, hatched=cell is None and line.cells[name].planned))
            if cell is not None:
                mean, source = cell
                other = "" if source is line else OTHER_RATE
                ink, weight = (
                    "white" if _luminance(face) < DARK else style.INK,
                    "bold" if mean >= probe.mark else "normal",
                )
                middle = (column + 0.5, place + 0.52)
                axes.text(
                    *middle,
                    f"{mean:.0f}{other}",
                    ha="center",
                    va="center",
                    fontsize=NUMBER,
                    color=ink,
                    fontweight=weight,
                )
                of_arm = {"part": line.part.label, "arm": line.arm, "probe": name}
                records.append({**of_arm, "mean": round(mean, 4), "from": source.arm})
        place += 1
    axes.set(xlim=(0, len(spec.probes)), ylim=(place, 0))
    axes.text(
        len(spec.probes), place + 0.3,
        f"mean over seeds, %; dark: 100, light: chance; bold: at the mark\nhatched: not run; {OTHER_RATE}: at another "
        "learning rate",
        ha="right", va="top", fontsize=7, color=style.GREY,
    )  # fmt: skip
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.set_xticks([column + 0.5 for column in range(len(spec.probes))], list(spec.probes))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    marks = ", ".join(f"{name} {probe.mark:g}" for name, probe in spec.probes.items())
    caption = (
        "Accuracy in per cent, mean over finished seeds, the highest over the learning rates that an arm has been run "
        f"at ({OTHER_RATE}: at another rate than the sweep's own). Light: at chance; dark: 100 %. Bold: at the mark or "
        f"above ({marks}). Hatched: not run yet."
    )
    return canvas, pd.DataFrame(records), "Accuracy by arm and probe", caption


def _luminance(colour: Any) -> float:
    """Relative luminance of a colour [r, g, b, …] between 0 and 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def _tile(column: int, place: int, face: Any, *, hatched: bool) -> Any:
    from matplotlib.patches import Rectangle

    if hatched:
        return Rectangle((column, place), 1, 1, facecolor=face, hatch="////", edgecolor="#c8c8c8", linewidth=0.0)
    return Rectangle((column, place), 1, 1, facecolor=face, edgecolor="white", linewidth=1.0)
