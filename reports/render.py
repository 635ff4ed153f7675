"""A report as files: ``report.md``, ``table.tex``, ``table.csv``, and every figure as PNG, PDF and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atomic_file
from reports import cells, words
from reports.figures import Drawing, draw
from reports.markup import environment
from reports.specification import load
from reports.table import Row, Table, build, state_text
from results.collect import Collected, Plan

if TYPE_CHECKING:
    import pandas as pd

RUN_HEADER = ("Arm", "Seed", "Run", "State", "Step", "Seconds", "Images/s", "Notes")


def render(
    spec_name: str,
    collected: Collected,
    plan: Plan,
    out_dir: Path,
    *,
    mixed: bool = False,
    label: str | None = None,
    date: str = "",
    figures: bool = True,
) -> list[Path]:
    """Writes the report ``spec_name`` of ``collected`` into ``out_dir`` and returns the files.

    label: what these results are called (the name of a measured folder), put behind the title; date: of the runs,
    where their finished times are not to be taken. The same input gives the same bytes.
    """
    table = build(load(spec_name), collected, plan, mixed=mixed)
    written: list[Path] = []
    drawings: list[Drawing] = []
    if figures:
        drawings, problems = draw(table, collected)
        table = Table(**{**vars(table), "warnings": (*table.warnings, *problems)})
        for drawing in drawings:
            written += [atomic_file.write(out_dir / name, content) for name, content in drawing.files.items()]
    pages = {
        "report.md": page(table, drawings, label=label, date=date, note=collected.about.get("note", "")),
        "table.tex": _template("table.tex.j2", table, columns="l" + "r" * 6 + "l"),
        "table_alone.tex": _template("table_alone.tex.j2", table),
        "table.csv": frame(table).to_csv(index=False, lineterminator="\n"),
    }
    return [atomic_file.write(out_dir / name, content) for name, content in pages.items()] + written


def page(
    table: Table, drawings: Sequence[Drawing] = (), *, label: str | None = None, date: str = "", note: str = ""
) -> str:
    """The Markdown page; ``note`` is what whoever committed the results said of them."""
    title = f"{table.spec.title}: {label}" if label else table.spec.title
    return (
        environment()
        .get_template("report.md.j2")
        .render(
            table=table,
            title=title,
            about=f"{words.about(table, date)} {note}".strip(),
            header=cells.header(table),
            sides=["l", "r", "r", "r", "r", "r", "r", "l"],
            body=cells.body(table),
            legend=words.legend(table),
            places=words.places(table),
            figures=drawings,
            run_header=list(RUN_HEADER),
            run_sides=["l", "r", "l", "l", "r", "r", "r", "l"],
            run_rows=[_run_cells(table, run) for run in table.runs.to_dict("records")],
            warnings=table.warnings,
        )
    )


def frame(table: Table) -> pd.DataFrame:
    """The table as plain numbers, for further use; one row per arm."""
    import pandas as pd

    return pd.DataFrame([record(table, row) for row in table.rows])


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
        "verdict": row.verdict.value,
    }


def _template(name: str, table: Table, **more: Any) -> str:
    return (
        environment()
        .get_template(name)
        .render(
            title=table.spec.title,
            header=cells.header(table),
            body=cells.body(table),
            legend=words.legend(table),
            **more,
        )
    )


def _run_cells(table: Table, run: Mapping[Any, Any]) -> list[object]:
    known = {key: value for key, value in run.items() if value == value and value is not None and str(value) != "<NA>"}
    return [
        table.label_of[run["arm"]],
        run["seed"],
        run["run"],
        state_text(run),
        known.get("step", cells.NOTHING),
        f"{known['wall_s']:.0f}" if "wall_s" in known else cells.NOTHING,
        f"{known['images_per_s']:.0f}" if "images_per_s" in known else cells.NOTHING,
        run["notes"] or cells.NOTHING,
    ]


def _round(value: float | None) -> float | None:
    """Four decimals: more than any accuracy has, and free of the noise of float sums."""
    return None if value is None else round(value, 4)
