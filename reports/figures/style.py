"""One look for all figures: an arm has the same colour, marker and dash everywhere; files carry no time stamp."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.formats.markup import csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reports.content.table import TaskTable

MARKERS = "oDs^vPX*<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)), (0, (2, 1)))
GREY = "#767676"
INK = "#262626"
DPI = 200
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names of arms and words of runs are text, dollars in them too
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class ArmStyle:
    colour: Any
    marker: str
    dash: Any


@contextmanager
def theme() -> Iterator[None]:
    import matplotlib
    import seaborn

    with matplotlib.rc_context({**seaborn.axes_style("ticks"), **SETTINGS}):
        yield


def arm_styles(table: TaskTable) -> dict[str, ArmStyle]:
    """Arm → style, by the arm's place in the table."""
    return styles_of([row.arm for row in table.rows])


def styles_of(arms: list[str]) -> dict[str, ArmStyle]:
    """Arm → style, by its place among ``arms``."""
    import seaborn

    # colour-blind safe, without its light grey and yellow, which are faint on white, and three dark colours more
    palette = [c for i, c in enumerate(seaborn.color_palette("colorblind")) if i not in (6, 7, 8)]
    palette += [INK, "#882255", "#777700"]
    return {
        arm: ArmStyle(palette[i % len(palette)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, arm in enumerate(arms)
    }


def new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot's global state, with an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def percent_axis(axes: Axes, unit: str) -> None:
    """Keeps percentages between 0 and 100 with a little air for markers at the ends."""
    if unit == "%":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))


def files(figure: Figure, data: pd.DataFrame, name: str) -> dict[str, bytes]:
    """PNG, PDF and CSV; the same figure gives the same bytes."""
    contents, silent = {}, {"png": ["Software"], "pdf": ["CreationDate", "Creator", "Producer"]}
    for suffix, keys in silent.items():
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=suffix, dpi=DPI, metadata=dict.fromkeys(keys), bbox_inches="tight", pad_inches=0.06
        )
        contents[f"{name}.{suffix}"] = buffer.getvalue()
    contents[f"{name}.csv"] = csv(data).encode()
    return contents
