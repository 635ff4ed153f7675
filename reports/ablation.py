"""The section of an ablation: its table, figures, settings, and the runs behind every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reports import cells, macros, words
from reports.cells import NOTHING
from reports.document import Cell, Grid, Run, Section, Source
from reports.figures import draw
from reports.table import Row, Table, detectable, state_text
from results import archive
from results.collect import Collected, Plan
from results.papers import Contradiction

SIDES = "lrrrrrrl"  # of the columns of cells.header


def section(
    table: Table,
    collected: Collected,
    plan: Plan,
    *,
    name: str,
    folder: Path,
    label: str | None = None,
    date: str = "",
    figures: bool = True,
) -> Section:
    """Puts ``table`` and its figures on a page.

    folder: where the results lie, the run folders' own or a measured one; label: what a measured one is called;
    date: of the runs, where their finished times are not to be taken.
    """
    drawings, problems = draw(table, collected) if figures else ([], [])
    listed = table.runs.to_dict("records")
    runs = tuple(run_line(table.label_of[run["arm"]], run, table.metric.metric, folder, label) for run in listed)
    note = str(collected.about.get("note", ""))
    remarks = cells.remarks(table)
    return Section(
        name=name,
        title=f"{table.spec.title}: {label}" if label else table.spec.title,
        question=table.spec.question,
        about=f"{words.about(table, date)} {note}".strip(),
        cautions=table.mixed,
        grid=_grid(table, remarks),
        legend=tuple(words.legend(table)),
        places=tuple(words.places(table)),
        remarks={letter: words.remark(found) for letter, found in remarks.items()},
        drawings=tuple(drawings),
        runs=runs,
        configs=configs(table, plan),
        macros=macros.of_table(table, name),
        records=tuple(record(table, row) for row in table.rows),
        warnings=(*table.warnings, *problems),
    )


def record(table: Table, row: Row) -> dict[str, Any]:
    """One row as plain numbers and words."""
    judged, gap = row.judged, row.difference
    number = judged.number if judged else row.references[0].number if row.references else None
    ours = judged.ours if judged else None
    return {
        "arm": row.arm,
        "label": row.label,
        "model": row.model,
        "protocol": table.protocol,
        "params_m": row.params_m,
        "flops_g": row.flops_g,
        "metric": table.metric.metric,
        "mean": _round(row.mean),
        "sd": _round(row.sd),
        "n": len(row.values),
        "planned": row.planned,
        "state": row.state,
        "difference": _round(gap.mean if gap else None),
        "low": _round(gap.low if gap else None),
        "high": _round(gap.high if gap else None),
        "pairs": gap.n if gap else 0,
        "papers": number.value if number else None,
        "papers_note": number.note if number else "",
        "papers_place": number.place if number else "",
        "papers_difference": judged.difference if judged else None,
        "papers_against": judged.against if judged else "",
        "difference_against": _round(ours.mean if ours else None),
        "p_holm": _round(row.judgement.p_holm),
        "papers_p_holm": _round(row.judgement.papers_p_holm),
        "detectable": _round(detectable(table, gap.n) if gap else None),
        "verdict": row.verdict.value,
    }


def run_line(arm: str, run: Mapping[Any, Any], metric: str, folder: Path, label: str | None) -> Run:
    """One row of the runs table as a page shows it; metric: the one that is reported."""
    known = {key: value for key, value in run.items() if value == value and value is not None and str(value) != "<NA>"}
    return Run(
        id=run["run"],
        arm=arm,
        seed=int(run["seed"]),
        state=state_text(run),
        step=str(known.get("step", NOTHING)),
        seconds=f"{known['wall_s']:.0f}" if "wall_s" in known else NOTHING,
        images_per_s=f"{known['images_per_s']:.0f}" if "images_per_s" in known else NOTHING,
        commit=str(known.get("commit") or NOTHING),
        notes=run["notes"] or NOTHING,
        sources=tuple(_sources(known, metric, folder, label)),
    )


def _sources(run: Mapping[Any, Any], metric: str, folder: Path, label: str | None) -> Iterator[Source]:
    """Where a run's numbers stand: in its own files, or in the committed ones that were made from them."""
    if label is not None:
        yield Source("metrics.csv", folder / "metrics.csv", archive.line_of(folder, run["run"], metric))
        yield Source("runs.csv", folder / "runs.csv")
        return
    line = int(run["log_line"]) if "log_line" in run else None
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "summary.json", "log.txt"):
        if (path := folder / run["run"] / name).is_file():
            yield Source(name, path, line if name == "metrics.jsonl" else None)


def _grid(table: Table, remarks: Mapping[str, Contradiction]) -> Grid:
    ids = {row.arm: _ids(table, row.arm) for row in table.rows}
    groups = []
    for row in table.rows:
        label, params, flops, result, difference, printed, printed_difference, verdict = cells.cells(table, row)
        gap, judged, numbers = row.difference, row.judged, cells.published(row)
        groups.append(((
            Cell(label),
            Cell(params, row.params_m),
            Cell(flops, row.flops_g),
            Cell(result, row.mean, ids[row.arm], tone="" if row.mean is not None else "waiting"),
            Cell(difference, gap.mean if gap else None, (*ids[row.arm], *ids[table.baseline]) if gap else ()),
            Cell(printed, numbers[0].value if numbers else None, marks=cells.marks(numbers, remarks)),
            Cell(printed_difference, judged.difference if judged else None),
            Cell(verdict, tone=verdict if verdict != NOTHING else ""),
        ),))  # fmt: skip
    return Grid(tuple(cells.header(table)), SIDES, tuple(groups))


def _ids(table: Table, arm: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table.runs[table.runs["arm"] == arm]["run"]))


def configs(table: Table, plan: Plan) -> dict[str, str]:
    """An arm's label → its model's settings, as YAML."""
    written = {}
    for arm in plan["arms"]:
        settings = arm.get("config") or {}
        written[table.label_of[arm["name"]]] = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    return written


def _round(value: float | None) -> float | None:
    """Four decimals: more than any accuracy has, and free of the noise of float sums."""
    return None if value is None else round(value, 4)
