"""The section of an ablation: its table, figures, settings, and the runs behind every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reports.content import remarks, words
from reports.content.page import Cell, Grid, MacroName, RunLine, Section, SourceFile
from reports.content.table import Ablation, ArmRow, PrintedReference, TaskTable, detectable, status
from reports.content.values import (
    NOTHING,
    Count,
    Judged,
    OnNewImages,
    PairedDifference,
    Printed,
    PrintedDifference,
    SeedMean,
    Several,
    State,
    Text,
    Value,
)
from reports.figures import draw
from reports.specification import Metric
from results import archive, fingerprints
from results.collect import Plan
from results.papers import Contradiction
from results.statistics.estimates import LEVEL
from results.statistics.verdicts import Verdict
from run_format import CONFIG, DONE, LOG, METRICS, PROVENANCE, SUMMARY

SIZES = ("Params (M)", "FLOPs (G)")
TIME = "ms / image"
NOT_RECORDED = "not recorded"  # a metric that finished runs lack


def section(
    ablation: Ablation,
    plan: Plan,
    *,
    name: str,
    folder: Path,
    label: str | None = None,
    date: str = "",
    figures: bool = True,
) -> Section:
    """Puts an ablation's table and figures on a page; where there are several tasks, ``all_tasks`` adds the tables.

    folder: where the results lie, run folders or a measured folder; label: name of the measured results;
    date: of the runs, where their finished times are not to be taken.
    """
    spec = ablation.spec
    drawings, problems = draw(ablation) if figures else ([], [])
    note = str(ablation.first.collected.about.get("note", ""))
    of_one = None if ablation.several else ablation.first
    marks = letters(of_one) if of_one else {}
    rows = [(table, row) for table in ablation.tables for row in table.rows]
    return Section(
        name=name,
        title=f"{spec.title}: {label}" if label else spec.title,
        question=spec.question,
        about=f"{words.about(ablation, date)} {note}".strip(),
        cautions=(*ablation.mixed, *ablation.left_out, *ablation.first.collected.remarks),
        grid=grid(of_one, marks) if of_one else None,
        legend=tuple(words.legend(ablation)),
        places=tuple(words.places(ablation)) if of_one else (),
        remarks=remarks.sentences(marks),
        drawings=tuple(drawings),
        runs=tuple(_run_lines(ablation, folder, label)),
        configs=configs(ablation, plan),
        macros=tuple(macro for table, row in rows for macro in _macros(table, row, name)),
        records=tuple(each for row in of_one.rows for each in records(of_one, row)) if of_one else (),
        warnings=(*ablation.warnings, *problems),
    )


def letters(table: TaskTable) -> dict[str, Contradiction]:
    """Letter → what contradicts a number that the papers print beside a row."""
    return remarks.lettered(number for row in table.rows for number in row.printed)


def records(table: TaskTable, row: ArmRow) -> Iterator[dict[str, Any]]:
    """A row as plain numbers and words, once for each number of the papers that it is compared with, at least once."""
    difference, images = row.difference, row.new_images
    own = {
        "arm": row.arm,
        "label": row.label,
        "model": row.model,
        "protocol": table.protocol,
        "params_m": row.params_m,
        "flops_g": row.flops_g,
        **({"ms_per_image": _round(row.ms_per_image)} if table.spec.times else {}),
        "metric": table.metric.metric,
        "mean": _round(row.mean),
        "sd": _round(row.sd),
        "n": len(row.values),
        "planned": row.planned,
        "state": row.state,
        "against": "" if row.is_baseline else row.against,
        "difference": _round(difference.mean if difference else None),
        "low": _round(difference.low if difference else None),
        "high": _round(difference.high if difference else None),
        "new_images_low": _round(images.low if images else None),
        "new_images_high": _round(images.high if images else None),
        "mcnemar_p": _round(row.mcnemar),
        "repeats_sd": _round(table.repeats.sd if table.repeats else None),
        "pairs": difference.n if difference else 0,
        "p_holm": _round(row.judgement.p_holm),
        "detectable": _round(detectable(table, difference.n) if difference else None),
        **_control_record(table, row),
        **_further_record(table, row),
        fingerprints.PRESENT_CODE: fingerprints.present_code(table.runs[table.runs["arm"] == row.arm]),
    }
    for reference in row.compared or row.references[:1] or (None,):
        yield own | _printed_record(reference)


def _further_record(table: TaskTable, row: ArmRow) -> dict[str, Any]:
    """Mean, deviation and number of runs of a row by each further metric."""
    record: dict[str, Any] = {}
    for metric, of_metric in _further(table, row):
        record |= {
            metric.metric: _round(of_metric.mean),
            f"{metric.metric}_sd": _round(of_metric.sd),
            f"{metric.metric}_n": len(of_metric.values),
        }
    return record


def _control_record(table: TaskTable, row: ArmRow) -> dict[str, Any]:
    """A row's difference to the control, where the table has one."""
    if table.control is None:
        return {}
    difference, images = row.control, row.control_images
    return {
        "control": table.control,
        "control_difference": _round(difference.mean if difference else None),
        "control_low": _round(difference.low if difference else None),
        "control_high": _round(difference.high if difference else None),
        "control_new_images_low": _round(images.low if images else None),
        "control_new_images_high": _round(images.high if images else None),
        "control_pairs": difference.n if difference else 0,
        "control_p_holm": _round(row.control_judgement.p_holm),
    }


def _printed_record(reference: PrintedReference | None) -> dict[str, Any]:
    """What the papers print beside a row, and how ours compares with it."""
    if reference is None:
        return {"verdict": Verdict.NO_NUMBER.value}
    number, ours, judgement = reference.number, reference.ours, reference.judgement
    low, high = (ours.prediction() if ours and reference.same_protocol else None) or (None, None)
    return {
        "papers": number.value,
        "papers_note": number.note,
        "papers_place": number.place,
        "papers_reading": reference.place.reading,
        "papers_difference": reference.difference,
        "papers_side": reference.place.side or "",
        "papers_against": reference.against if reference.compared else "",
        "difference_against": _round(ours.mean if ours and reference.compared else None),
        "prediction_low": _round(low),
        "prediction_high": _round(high),
        "papers_p_holm": _round(judgement.papers_p_holm),
        "verdict": judgement.verdict.value,
    }


def run_line(arm: str, run: Mapping[Any, Any], metric: str, folder: Path, label: str | None, task: str = "") -> RunLine:
    """One row of the runs table as a page shows it; metric: the one that is reported."""
    known = {key: value for key, value in run.items() if value == value and value is not None and str(value) != "<NA>"}
    return RunLine(
        id=run["run"],
        arm=arm,
        seed=int(run["seed"]),
        state=run["state"],
        status=status(run),
        task=task,
        step=known.get("step"),
        seconds=known.get("wall_s"),
        images_per_s=known.get("images_per_s"),
        commit=str(known.get("commit") or ""),
        notes=run["notes"],
        sources=tuple(_sources(known, metric, folder, label)),
    )


def origin(table: TaskTable, run: str, folder: Path, label: str | None) -> tuple[Path, str | None]:
    """Folder and label of a run's numbers: those of the table, or the measured results that filled its row."""
    filled_from = table.collected.labels.get(run)
    return (archive.folder(filled_from), filled_from) if filled_from else (folder, label)


def configs(ablation: Ablation, plan: Plan) -> dict[str, str]:
    """An arm's label → its model's settings, as YAML."""
    labels = ablation.first.label_of
    return {
        labels[arm["name"]]: yaml.safe_dump(dict(arm.get("config") or {}), sort_keys=False, allow_unicode=True)
        for arm in plan["arms"]
    }


def result(row: ArmRow, decimals: int) -> Value:
    """The mean over seeds, or the state of runs that have none; of finished ones, that they lack the metric."""
    if row.interval is not None:
        return SeedMean(row.interval, row.planned, decimals)
    if row.planned and row.state == DONE:
        return State(NOT_RECORDED)
    return State(row.state) if row.planned else NOTHING


def _run_lines(ablation: Ablation, folder: Path, label: str | None) -> Iterator[RunLine]:
    for table in ablation.tables:
        task = table.task if ablation.several else ""
        for run in table.runs.to_dict("records"):
            where = origin(table, run["run"], folder, label)
            yield run_line(table.label_of[run["arm"]], run, table.metric.metric, *where, task)


def _sources(run: Mapping[Any, Any], metric: str, folder: Path, label: str | None) -> Iterator[SourceFile]:
    """Where a run's numbers stand: in its own files, or in the committed ones that were made from them."""
    if label is not None:
        yield SourceFile("metrics.csv", folder / "metrics.csv", archive.line_of(folder, run["run"], metric))
        yield SourceFile("runs.csv", folder / "runs.csv")
        return
    line = int(run["log_line"]) if "log_line" in run else None
    for name in (CONFIG, PROVENANCE, METRICS, SUMMARY, LOG):
        if (path := folder / run["run"] / name).is_file():
            yield SourceFile(name, path, line if name == METRICS else None)


def grid(table: TaskTable, letters: Mapping[str, Contradiction]) -> Grid:
    """The table of one task, a row per arm."""
    times = table.spec.times
    header = ("Arm", *SIZES, *((TIME,) if times else ()), *_header(table))
    ours = times + 2 + len(table.further) + (table.control is not None) + on_new_images(table)
    sides = "lrr" + "r" * ours + ("rrl" if table.papers else "")
    rows = [
        (
            Cell(Text(row.label)),
            *sizes(row),
            *((Cell(_number(row.ms_per_image, 2) or NOTHING),) if times else ()),
            *_cells(table, row, letters),
        )
        for row in table.rows
    ]
    return Grid(header, sides, tuple((row,) for row in rows))


def _header(table: TaskTable) -> list[str]:
    level, base = f"{100 * LEVEL:.0f} %", table.label_of[table.baseline]
    floor = f"; repeats of one run ± {table.repeats.sd:.{table.metric.decimals}f}" if table.repeats else ""
    ours = [
        f"{table.metric.label} ({table.metric.unit})",
        f"Δ to {base} [{level} over seeds, these images{floor}]",
    ]
    ours[1:1] = [f"{each.metric.label} ({each.metric.unit})" for each in table.further]
    if table.control is not None:
        ours.insert(-1, f"Δ to the control, {table.label_of[table.control]} [{level} over seeds, these images]")
    if on_new_images(table):
        ours.append(f"Δ [{level} over seeds and images]")
    if table.papers is None:
        return ours
    return [*ours, f"Papers ({table.papers.label})", "Papers' Δ", "Verdict"]


def _cells(table: TaskTable, row: ArmRow, letters: Mapping[str, Contradiction]) -> list[Cell]:
    """An arm in one task: our result and difference and, where a specification names them, the papers'."""
    ids = arm_runs(table, row.arm)
    difference: Value = Text("baseline") if row.is_baseline else NOTHING
    behind: tuple[str, ...] = ()
    if row.difference is not None:
        against = "" if row.against == table.baseline else table.label_of[row.against]
        mark = "†" if row.other_model else ""
        difference = PairedDifference(row.difference, table.metric.decimals, mark, against, row.mcnemar)
        behind = (*ids, *arm_runs(table, row.against))
    ours = [Cell(result(row, table.metric.decimals), ids), Cell(difference, behind)]
    ours[1:1] = [Cell(result(each, metric.decimals), ids) for metric, each in _further(table, row)]
    if table.control is not None:
        ours.insert(-1, _to_control(table, row, table.control))
    if on_new_images(table):
        ours.append(Cell(OnNewImages(row.new_images, table.metric.decimals) if row.new_images else NOTHING, behind))
    if table.papers is None:
        return ours
    numbers = tuple(reference.number for reference in row.references)
    printed: Value = Printed(numbers, with_models=True) if numbers else NOTHING
    # both editions print some differences, with one verdict
    compared = list(dict.fromkeys((_of_papers(table, each), _judged(table, each)) for each in row.compared))
    of_papers, verdicts = (_one(values) for values in zip(*compared)) if compared else (NOTHING, NOTHING)
    return [*ours, Cell(printed, marks=remarks.marks(row.printed, letters)), Cell(of_papers), Cell(verdicts)]


def _further(table: TaskTable, row: ArmRow) -> Iterator[tuple[Metric, ArmRow]]:
    """The row's arm by each further metric of the task."""
    place = table.rows.index(row)
    for each in table.further:
        yield each.metric, each.rows[place]


def _to_control(table: TaskTable, row: ArmRow, control: str) -> Cell:
    if row.control is None:
        return Cell(Text("control") if row.arm == control else NOTHING)
    behind = (*arm_runs(table, row.arm), *arm_runs(table, control))
    return Cell(PairedDifference(row.control, table.metric.decimals), behind)


def on_new_images(table: TaskTable) -> bool:
    """Whether any difference of a table is known over seeds and images."""
    return any(row.new_images is not None for row in table.rows)


def _of_papers(table: TaskTable, reference: PrintedReference) -> Value:
    """The papers' difference; under another protocol with the interval that it would have if their runs were ours."""
    against = "" if reference.against == table.baseline else table.label_of[reference.against]
    return PrintedDifference(
        reference.difference, reference.number.decimals, against, reference.place.side or "", reference.own_interval
    )


def _judged(table: TaskTable, reference: PrintedReference) -> Value:
    prediction = reference.ours.prediction() if reference.ours and reference.by_size else None
    return Judged(reference.judgement.verdict, prediction, table.metric.decimals)


def _one(values: Sequence[Value]) -> Value:
    return values[0] if len(values) == 1 else Several(tuple(values))


def _macros(table: TaskTable, row: ArmRow, section: str) -> Iterator[tuple[MacroName, Value]]:
    """Every number of a row, for running text."""
    decimals = table.metric.decimals
    task = (table.task,) if table.downstream else ()
    quantities: dict[str, Value | None] = {
        "Params": _number(row.params_m, 3),
        "Flops": _number(row.flops_g, 3),
        "Mean": _number(row.mean, decimals),
        "N": None if row.mean is None else Count(len(row.values), 0),
        "Deviation": _number(row.sd, decimals),
    }
    if (difference := row.difference) is not None:
        quantities["Delta"] = Count(difference.mean, decimals, signed=True)
        if difference.low is not None and difference.high is not None:
            quantities["DeltaLow"] = Count(difference.low, decimals, signed=True)
            quantities["DeltaHigh"] = Count(difference.high, decimals, signed=True)
    if (control := row.control) is not None:
        quantities["ControlDelta"] = Count(control.mean, decimals, signed=True)
        if control.low is not None and control.high is not None:
            quantities["ControlDeltaLow"] = Count(control.low, decimals, signed=True)
            quantities["ControlDeltaHigh"] = Count(control.high, decimals, signed=True)
    if row.new_images is not None:
        quantities["NewImagesLow"] = Count(row.new_images.low, decimals, signed=True)
        quantities["NewImagesHigh"] = Count(row.new_images.high, decimals, signed=True)
    if row.compared and (first := row.compared[0]).difference is not None:
        quantities["PapersDelta"] = Count(first.difference, first.number.decimals, signed=True)
        quantities["Verdict"] = Judged(first.judgement.verdict)
    for quantity, value in quantities.items():
        if value is not None:
            yield (section, *task, row.arm, quantity), value


def arm_runs(table: TaskTable, arm: str) -> tuple[str, ...]:
    """The ids of an arm's runs of a task, each once."""
    return tuple(dict.fromkeys(table.runs[table.runs["arm"] == arm]["run"]))


def sizes(row: ArmRow) -> tuple[Cell, ...]:
    """An arm's parameters and FLOPs."""
    return tuple(Cell(_number(value, 3) or NOTHING) for value in (row.params_m, row.flops_g))


def _number(value: float | None, decimals: int) -> Count | None:
    return None if value is None else Count(value, decimals)


def _round(value: float | None) -> float | None:
    """Four decimals: more than any accuracy has, and free of the noise of float sums."""
    return None if value is None else round(value, 4)
