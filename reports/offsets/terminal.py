"""Learned offsets for the terminal: the statistics in rich, or one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import output
from reports.content.page import Section
from reports.content.text import text
from reports.formats.terminal import rich_table
from reports.offsets.measured import Measured
from reports.offsets.page import COMPARED, COMPARED_SIDES, HEADER, SIDES, compared, rows, sentence


def show(measured: Measured) -> None:
    console = output.console()
    console.print(sentence(measured).replace("`", ""), style="dim", markup=False)
    output.print_table(rich_table(HEADER, [list(map(text, row)) for row in rows(measured)], SIDES))


def to_json(measured: Measured, files: list[Path]) -> str:
    return json.dumps(
        {**measured.about, "statistics": measured.statistics.to_dict("records"), "written": [str(f) for f in files]}
    )


def show_comparison(plan: Mapping[str, Any], summary: Any, folders: Mapping[str, Path | str]) -> None:
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    cells = compared(summary, labels, ranges=False)
    output.print_table(rich_table(COMPARED, [list(map(text, row)) for row in cells], COMPARED_SIDES))
    show_missing(folders)


def show_missing(found: Mapping[str, Path | str]) -> None:
    """The runs that were not measured, each with the reason."""
    console = output.console()
    for run, reason in found.items():
        if not isinstance(reason, Path):
            console.print(f"{run}: {reason}", style="dim", markup=False)


def comparison_to_json(
    plan: Mapping[str, Any], summary: Any, folders: Mapping[str, Path | str], files: list[Path]
) -> str:
    statistics = {"statistics": summary.to_dict("records")}
    return json.dumps(_document(plan, folders) | statistics | {"written": [str(file) for file in files]})


def interventions_to_json(
    plan: Mapping[str, Any], section: Section, found: Mapping[str, Path | str], files: list[Path]
) -> str:
    """Of a sweep; the rows are those of table.csv."""
    effects = {"interventions": list(section.records), "cautions": list(section.cautions)}
    return json.dumps(_document(plan, found) | effects | {"written": [str(file) for file in files]})


def _document(plan: Mapping[str, Any], found: Mapping[str, Path | str]) -> dict[str, Any]:
    """The plan, and where each of its runs was measured, or why it was not."""
    runs = [
        {**run, "measured": isinstance(found[run["run"]], Path), "where": str(found[run["run"]])}
        for run in plan["runs"]
    ]
    return {"sweep": plan["sweep"], "protocol": plan["protocol"], "arms": plan["arms"], "runs": runs}
