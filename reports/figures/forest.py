"""All differences of one or more tables under each other: ours with its interval, and the papers' beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures import style
from results.statistics.estimates import LEVEL, Difference
from results.statistics.images import NewImages

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from reports.content.findings import JudgedEvidence
    from reports.content.table import ArmRow, TaskTable
    from reports.specification import Figure

COLOUR = "#0072b2"
ROW, HEAD, FOOT, GAP = 0.24, 0.45, 0.42, 0.12  # inches of height: a row, a group's headings, its axis, between groups
LETTER, BOLD_LETTER = 0.062, 0.092  # inches per letter of a row's label and of a heading, about
OURS, THEIRS, MARGIN = 3.4, 1.7, 0.5  # inches of width: the panels of both, and the number of seeds
LEGEND_COLUMNS = 2
LONGEST_STATE = 28  # letters; the table has more of it
AIR = 0.08  # of a panel's width


@dataclass(frozen=True)
class Entry:
    """One arm against another, in points; ours is None where no pair of runs has finished.

    pairs: their number, or as in the table why there is none; papers: the papers' difference; other_model: it is of
    another model, so that only its sign can be compared; new_images: ours over seeds and images.
    """

    arm: str
    label: str
    against: str
    ours: Difference | None
    pairs: str
    papers: float | None
    other_model: bool = False
    new_images: NewImages | None = None


@dataclass(frozen=True)
class ArmGroup:
    """The differences of one table, all of one protocol and metric.

    papers_label: the papers' protocol where it is another one: then their differences have a scale of their own.
    """

    title: str
    protocol: str
    axis_label: str
    entries: tuple[Entry, ...]
    papers_label: str | None = None


def draw(tables: Sequence[TaskTable], figure: Figure) -> tuple[Any, pd.DataFrame, str, str] | None:
    """The figure of a sweep's tasks, its data, title and caption; None where no arm has a difference yet."""
    groups = [group for group in map(of_table, tables) if any(entry.ours for entry in group.entries)]
    if not groups:
        return None
    return forest(groups), data(groups), "Differences", caption(groups)


def of_table(table: TaskTable) -> ArmGroup:
    """A row per arm against the baseline, and one for every other arm that the papers compare it with."""
    entries, base, same = [], table.label_of[table.baseline], table.is_papers_protocol
    for row in (row for row in table.rows if row.planned):
        compared = {each.against: each for each in reversed(row.compared)}  # the first of several with one arm
        arms = dict.fromkeys([*([] if row.arm == row.against else [row.against]), *reversed(compared)])
        for arm in arms:
            printed, against = compared.get(arm), table.label_of[arm]
            own = arm == row.against
            ours, images = (
                (row.difference, row.new_images) if own or not printed else (printed.ours, printed.new_images)
            )
            label = row.label if arm == table.baseline else f"{row.label} − {against}"
            difference = printed.difference if printed else None
            other = same and printed is not None and not printed.same_protocol
            entries.append(Entry(row.arm, label, against, ours, _pairs(row, ours), difference, other, images))
    metric = table.metric
    papers = table.papers
    protocol = papers.label if papers and same else f"protocol {table.protocol}"
    axis_label = f"Δ {metric.label} to {base} (points)"
    title = f"{table.spec.title}: {table.task}" if table.downstream else table.spec.title
    return ArmGroup(title, protocol, axis_label, tuple(entries), None if same or papers is None else papers.label)


def of_findings(found: Sequence[JudgedEvidence]) -> list[ArmGroup]:
    """The contrasts of a page of findings by sweep and metric, each once, where any pair of runs has finished."""
    by_table: dict[str, tuple[JudgedEvidence, dict[str, Entry]]] = {}
    for each in found:
        if each.table is not None and each.row is not None and each.results is not None and each.n:
            _, entries = by_table.setdefault(each.results.name, (each, {}))
            label, pairs = each.row.label, _count(each.n, each.planned)
            entries[label] = Entry(label, label, "", each.row.difference, pairs, None)
    return [
        ArmGroup(
            of.table.spec.title, f"protocol {of.table.protocol}", f"Δ {of.table.metric.label} (points)",
            tuple(entries.values()),
        )
        for of, entries in by_table.values()
        if of.table is not None
    ]  # fmt: skip


def forest(groups: Sequence[ArmGroup]) -> Any:
    """One panel per group with its own scale, as high as it has rows; a second one where the papers' scale differs."""
    left = LETTER * max(len(entry.label) for group in groups for entry in group.entries) + 0.15
    apart = any(_is_apart(group) for group in groups)
    margin = max(MARGIN, 0.15 + LETTER * max(len(entry.pairs) for group in groups for entry in group.entries))
    width = left + OURS + margin + apart * (THEIRS + 0.2)
    width = max(width, *(BOLD_LETTER * len(group.title) for group in groups))
    heights = [HEAD + ROW * len(group.entries) + FOOT for group in groups]
    marks = _legend([entry for group in groups for entry in group.entries])
    total = sum(heights) + GAP * (len(groups) - 1) + ROW * math.ceil(len(marks) / LEGEND_COLUMNS)
    canvas = style.new_figure(width, total)
    top = total
    for group, height in zip(groups, heights):
        bottom, tall = top - height + FOOT, ROW * len(group.entries)
        ours = canvas.add_axes((left / width, bottom / total, OURS / width, tall / total))
        _ours(ours, group)
        canvas.text(0, top / total, group.title, fontweight="bold", fontsize=9.5, va="top")
        if _is_apart(group):
            start = left + OURS + margin + 0.2
            _theirs(canvas.add_axes((start / width, bottom / total, THEIRS / width, tall / total)), group)
        top -= height + GAP
    canvas.legend(
        marks.values(), marks, loc="lower left", bbox_to_anchor=(left / width, 0.0), ncols=LEGEND_COLUMNS,
        frameon=False, fontsize=8, borderpad=0, borderaxespad=0, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    return canvas


def data(groups: Sequence[ArmGroup]) -> pd.DataFrame:
    """What the figure shows, one line per row of it."""
    import pandas as pd

    records = [
        {
            "group": group.title, "arm": entry.arm, "against": entry.against,
            "mean": entry.ours.mean if entry.ours else None, "low": entry.ours.low if entry.ours else None,
            "high": entry.ours.high if entry.ours else None, "n": entry.ours.n if entry.ours else 0,
            "new_images_low": entry.new_images.low if entry.new_images else None,
            "new_images_high": entry.new_images.high if entry.new_images else None,
            "papers": entry.papers,
        }
        for group in groups for entry in group.entries
    ]  # fmt: skip
    return pd.DataFrame(records).round(4)


def caption(groups: Sequence[ArmGroup]) -> str:
    sentences = [
        f"Differences in points, paired by seed, with the {100 * LEVEL:.0f} % t-interval over seeds on these images, "
        "not corrected for the number of rows; n pairs of runs, or those of all planned, at the right. Without an "
        "interval: one pair, or pairs that differ by the same amount."
    ]
    if any(entry.new_images for group in groups for entry in group.entries):
        sentences.append("Thin lines: the interval over seeds and images.")
    if any(_is_apart(group) for group in groups):
        sentences.append("The papers' differences are of another protocol and have their own scale.")
    return " ".join(sentences)


def _is_apart(group: ArmGroup) -> bool:
    return group.papers_label is not None and any(entry.papers is not None for entry in group.entries)


def _ours(axes: Axes, group: ArmGroup) -> None:
    _rows(axes, group)
    axes.set_yticks(range(len(group.entries)), [entry.label for entry in group.entries])
    axes.set_title(f"Ours, {group.protocol}", loc="left", fontsize=8.5)
    axes.set_xlabel(group.axis_label)
    for y, entry in enumerate(group.entries):
        ours = entry.ours
        if ours is not None:
            if ours.low is not None and ours.high is not None:
                axes.plot((ours.low, ours.high), (y, y), "|-", color=COLOUR, linewidth=2.2, markersize=7, zorder=3)
            if (images := entry.new_images) is not None:
                axes.plot((images.low, images.high), (y, y), "|-", color=COLOUR, linewidth=0.9, markersize=4, zorder=3)
            axes.plot(ours.mean, y, "o", color=COLOUR, markersize=5.5, markeredgecolor="white", mew=0.6, zorder=4)
        if entry.papers is not None and group.papers_label is None:
            _diamond(axes, entry.papers, y, style.GREY if entry.other_model else style.INK)
        axes.annotate(
            entry.pairs, (1, y), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            fontsize=7.5, color=style.GREY, va="center",
        )  # fmt: skip
    _widen(axes)


def _count(n: int, planned: int) -> str:
    """As the table says it."""
    return f"n = {n}" if n == planned else f"{n} of {planned}"


def _pairs(row: ArmRow, ours: Difference | None) -> str:
    """How many pairs of runs there are of those planned, or the state of the arm's runs, as the table has it."""
    if ours is not None:
        return _count(ours.n, row.planned)
    state = "no pair" if row.values else row.state
    return state if len(state) <= LONGEST_STATE else f"{state[: LONGEST_STATE - 1].rstrip()}…"


def _theirs(axes: Axes, group: ArmGroup) -> None:
    _rows(axes, group)
    axes.set_yticks(range(len(group.entries)), [""] * len(group.entries))
    axes.set_xlabel("Papers' Δ (points)")
    axes.set_title(f"Papers, {group.papers_label}", loc="left", fontsize=8.5)
    for y, entry in enumerate(group.entries):
        if entry.papers is not None:
            _diamond(axes, entry.papers, y, style.INK)
    _widen(axes)


def _rows(axes: Axes, group: ArmGroup) -> None:
    axes.set_ylim(len(group.entries) - 0.5, -0.5)
    axes.axvline(0, color=style.INK, linewidth=0.9, zorder=2)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for y in range(0, len(group.entries), 2):  # leads the eye from the label to the right margin
        axes.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", zorder=0, linewidth=0)


def _diamond(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.plot(x, y, "D", markersize=5.5, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.1, zorder=5)


def _widen(axes: Axes) -> None:
    """Air at both ends; 0 is always shown."""
    low, high = min(axes.dataLim.x0, 0.0), max(axes.dataLim.x1, 0.0)
    if not low < high:  # nothing but zeros, or nothing
        low, high = -1.0, 1.0
    air = AIR * (high - low)
    axes.set_xlim(low - air, high + air)


def _legend(entries: Sequence[Entry]) -> dict[str, Any]:
    """What each mark of the figure means → the mark."""
    from matplotlib.lines import Line2D

    mean = Line2D([], [], color=COLOUR, marker="o", markersize=5.5, markeredgecolor="white", linewidth=1.6)
    marks = {f"ours, mean and {100 * LEVEL:.0f} % interval over n pairs of seeds": mean}
    if any(entry.new_images for entry in entries):
        marks["interval over seeds and images"] = Line2D([], [], color=COLOUR, marker="|", markersize=4, linewidth=0.9)
    for other, name, colour in ((False, "papers", style.INK), (True, "papers, another model", style.GREY)):
        if any(entry.papers is not None and entry.other_model is other for entry in entries):
            marks[name] = Line2D([], [], linestyle="none", marker="D", markersize=5.5, markerfacecolor="white")
            marks[name].set_markeredgecolor(colour)
    return marks
