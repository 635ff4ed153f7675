"""The page of one run: its state, its metrics, its learning curves, its settings, and where its files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.content.page import Cell, Grid, Page, RunLine, Section, SourceFile
from reports.content.values import Text
from reports.figures import Drawing, run_curves
from results.run_folders.metrics_log import LoggedMetrics
from results.run_folders.recorded_run import OneRun
from run_format import CONFIG, LOG, METRICS, PROVENANCE, SUMMARY


def page(run: OneRun) -> Page:
    """The page of a run, whatever its state."""
    record = run.recorded
    drawings: tuple[Drawing, ...] = tuple(run_curves.draw(record.run, record.log)) if record.log else ()
    metrics = latest(record.log) if record.log else []
    rows = tuple(
        tuple(Cell(Text(text)) for text in (name, f"{value:.4g}", f"{best:.4g}", f"{step:,}"))
        for name, value, best, step in metrics
    )
    section = Section(
        name="run",
        title=record.run,
        about=about(run),
        grid=Grid(("Metric", "Latest", "Best", "at step"), "lrrr", tuple((row,) for row in rows)) if rows else None,
        legend=("*Best* is the lowest loss and the highest value of anything else, at the step that is named.",),
        drawings=drawings,
        runs=(_line(run),),
        configs={"config.yaml": record.config},
        records=tuple({"metric": n, "latest": v, "best": b, "step": s} for n, v, b, s in metrics),
        warnings=tuple(record.warnings),
    )
    return Page(record.run, f"Run {record.run}", (section,))


def about(run: OneRun) -> str:
    """A paragraph on the state of the run and on what its numbers come from."""
    record = run.recorded
    row = record.facts()["row"]
    share = f", {100 * record.progress:.0f} % of its steps" if record.progress is not None else ""
    sentences = [f"State: {record.state}{share}{f' ({record.cause})' if record.cause else ''}."]
    if row["task"]:
        sentences.append(f"Task {row['task']}, model {row['model']}.")
    if row["wall_s"]:
        sentences.append(f"It took {row['wall_s']:,.0f} s on {row['device']}.")
    if run.provenance:
        commit = str(run.provenance.get("commit") or "unknown")[:8]
        data = run.provenance.get("data_fingerprint") or "drawn by code"
        code = run.provenance.get("code_fingerprint")
        sentences.append(f"Code {code} (commit {commit}), data {data}.")
    return " ".join([*sentences, f"Its files are in `{run.folder}`."])


def latest(log: LoggedMetrics) -> list[tuple[str, float, float, int]]:
    """(metric, its last value, its best, the step of that) of every logged metric that has numbers."""
    import numpy as np

    found = []
    for position, name in enumerate(log.names):
        values = log.values[:, position]
        present = np.flatnonzero(np.isfinite(values))
        if len(present) and name != "train/lr":
            pick = np.argmin if "loss" in name else np.argmax
            best = present[pick(values[present])]
            found.append((name, float(values[present[-1]]), float(values[best]), int(log.steps[best])))
    return found


def document(run: OneRun) -> dict[str, Any]:
    """The same in plain values, for ``--json``."""
    record = run.recorded
    metrics = latest(record.log) if record.log else []
    return {
        "run": record.run,
        "state": record.state,
        "cause": record.cause,
        "progress": record.progress,
        "folder": str(run.folder),
        "metrics": {name: value for name, value, _, _ in metrics},
        "summary": record.summary,
        "provenance": run.provenance,
        "config": record.config,
        "warnings": record.warnings,
    }


def _line(run: OneRun) -> RunLine:
    record, row = run.recorded, run.recorded.facts()["row"]
    names = (CONFIG, METRICS, SUMMARY, PROVENANCE, LOG)
    sources = tuple(SourceFile(name, path) for name in names if (path := run.folder / name).is_file())
    return RunLine(
        id=record.run,
        arm=row["model"] or "–",
        seed=run.seed,
        state=record.state,
        status=record.state + (f": {record.cause}" if record.cause else ""),
        step=row["step"],
        seconds=row["wall_s"],
        images_per_s=row["images_per_s"],
        commit=row["commit"],
        notes=row["notes"],
        sources=(SourceFile("folder", Path(run.folder)), *sources),
    )
