"""The section of a sweep's contrasts: differences between arms of a specification's choice, and which are resolved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reports.content.page import Cell, Grid, Section
from reports.content.table import ContrastRow, TaskTable
from reports.content.values import NOTHING, OnNewImages, PairedDifference, PrintedDifference, PValue, Text, Value
from reports.content.verdict_words import percent
from results.statistics.estimates import LEVEL
from results.statistics.verdicts import EQUIVALENCE, equivalent

DIFFERENT, EQUIVALENT, NOT_RESOLVED = "different", "equivalent", "not resolved"


def section(table: TaskTable, name: str) -> Section | None:
    """A task's contrasts of the results called ``name``; None where the specification has none, or none is planned."""
    if not table.contrasts:
        return None
    level, printed = percent(LEVEL), _printed(table)
    header = (
        "Contrast",
        f"{table.metric.label}, points [{level} over seeds, these images]",
        f"[{level} over seeds and images]",
        "p (Holm)",
        "Resolved",
        *(["Papers' Δ"] if printed else []),
    )
    rows = [tuple(Cell(value) for value in _cells(table, row)) for row in table.contrasts]
    return Section(
        name=f"{name}-{table.task}-contrasts" if table.downstream else f"{name}-contrasts",
        title=f"Contrasts: {name}, {table.task}" if table.downstream else f"Contrasts: {name}",
        grid=Grid(header, "lrrrl" + "r" * printed, tuple((row,) for row in rows)),
        legend=tuple(_legend(table)),
        records=tuple(_record(table, row) for row in table.contrasts),
    )


def judged(table: TaskTable, row: ContrastRow) -> str:
    """*different*, *equivalent*, both, or *not resolved*; nothing where there is no test or no interval."""
    if row.difference is None or row.p_holm is None:
        return ""
    margin = table.metric.margin
    words = [DIFFERENT] if row.p_holm < 1 - LEVEL else []
    words += [EQUIVALENT] if margin is not None and equivalent(row.difference, 0.0, margin) else []
    return ", ".join(words) or NOT_RESOLVED


def _printed(table: TaskTable) -> bool:
    """Whether the papers print any of a table's differences."""
    return any(row.papers_difference is not None for row in table.contrasts)


def _cells(table: TaskTable, row: ContrastRow) -> Iterator[Value]:
    decimals = table.metric.decimals
    yield Text(row.label)
    yield NOTHING if row.difference is None else PairedDifference(row.difference, decimals)
    yield NOTHING if row.new_images is None else OnNewImages(row.new_images, decimals)
    yield NOTHING if row.p_holm is None else PValue(row.p_holm)
    yield Text(judged(table, row) or NOTHING.words)
    if _printed(table):
        value = row.papers_difference
        yield NOTHING if value is None else PrintedDifference(value, row.papers_decimals)


def _legend(table: TaskTable) -> Iterator[str]:
    tested = sum(row.contrast.tested for row in table.contrasts)
    yield (
        "Each contrast is taken seed by seed; p is that of the paired t-test over seeds on these images, corrected "
        f"(Holm) over the contrasts of this table that are tested, {tested} in number. Intervals are not corrected."
    )
    words = f"*{DIFFERENT}*: p below {1 - LEVEL:.2f}."
    if (margin := table.metric.margin) is not None:
        words += (
            f" *{EQUIVALENT}*: the {percent(EQUIVALENCE)} interval over seeds lies within ±{margin:g} points (two "
            "one-sided tests, not corrected); a difference can be both, real and too small to matter."
        )
    yield f"{words} *{NOT_RESOLVED}*: all else, which does not show that the arms are equal."
    if _printed(table):
        yield "*Papers' Δ*: between the numbers that one of their tables prints for both arms, without a test."


def _record(table: TaskTable, row: ContrastRow) -> dict[str, Any]:
    difference, images = row.difference, row.new_images
    return {
        "contrast": row.label,
        "plus": " ".join(row.contrast.plus),
        "minus": " ".join(row.contrast.minus),
        "metric": table.metric.metric,
        "pairs": difference.n if difference else 0,
        "difference": difference.mean if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
        "new_images_low": images.low if images else None,
        "new_images_high": images.high if images else None,
        "p_holm": row.p_holm,
        "verdict": judged(table, row),
        **({"papers_difference": row.papers_difference} if _printed(table) else {}),
    }
