"""Writes collected results into measured results, where they are merged with what was collected before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from results import archive, archive_interventions
from results.exclusion import include
from results.merge import measurement, merge, rows_by_run
from results.plans import Plan
from results.tables import Collected, Exclusion
from run_format import DONE, NOT_RUN

BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z])")  # a capital follows: not after "e.g."


def into_label(collected: Collected, plan: Plan, label: str, *, title: str, date: str, note: str = "") -> list[Path]:
    """Merges results into ``results/measured/<label>``, or writes them there if it does not exist yet.

    Returns the files that were written: none where the label holds all of it already. Waits while another process
    changes measured results.
    """
    with archive.changing():
        return _merged_into(collected, plan, label, title, date, note)


def _merged_into(collected: Collected, plan: Plan, label: str, title: str, date: str, note: str) -> list[Path]:
    folder = archive.folder(label)
    new = collected.about.get("history") or [_entry(collected, {"date": date, "note": note, **collected.about})]
    if not (folder / "about.yaml").is_file():
        about = {**collected.about, "title": title, **_summary(new)}
        if len(new) > 1:
            about["history"] = new
        return archive.write(collected, folder, plan, **_kept(about))
    there = archive.read(folder)
    merged, merged_plan = merge(there, archive.plan_of(there), collected, plan, label)
    about = there.about
    old = about.get("history") or [_entry(there, about)]
    if _unchanged(merged, merged_plan, there) and (not note or any(note == entry["note"] for entry in old)):
        return []
    added = [entry for entry in new if entry not in old and entry["runs"]]  # one without results measured nothing
    history = sorted([*old, *added], key=lambda entry: str(list(entry.values())))
    if not added:
        return archive.write(merged, folder, merged_plan, **_kept(about))
    return archive.write(merged, folder, merged_plan, **_kept({**about, **_summary(history), "history": history}))


def _entry(collected: Collected, about: Mapping[str, Any]) -> dict[str, Any]:
    """One collection in the history of a label."""
    hardware = about.get("hardware") or archive.devices(collected)
    done = include(collected).runs
    runs = int(done[done["state"] == DONE]["run"].nunique())
    return {"date": about.get("date", ""), "hardware": hardware, "note": about.get("note") or "", "runs": runs}


def _summary(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """date, hardware and note of all collections together."""
    hardware = list({str(entry["hardware"]): entry["hardware"] for entry in history if entry["hardware"]}.values())
    return {
        "date": max(str(entry["date"]) for entry in history),
        "hardware": hardware[0] if len(hardware) == 1 else "; ".join(map(str, hardware)),
        "note": _together(entry["note"] for entry in history),
    }


def _together(notes: Iterable[str]) -> str:
    """Several notes as one text, in which each of their sentences stands once."""
    sentences = (sentence for note in notes for sentence in BETWEEN_SENTENCES.split(" ".join(note.split())))
    return " ".join(dict.fromkeys(filter(None, sentences)))


def _kept(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in ("title", "date", "hardware", "note", "history") if key in about}


def _unchanged(merged: Collected, plan: Plan, there: Collected) -> bool:
    """Whether a label holds all of what was merged into it already."""
    before = archive.plan_of(there)
    texts = [archive.contents(*each, title="", date="") for each in ((merged, plan), (there, before))]
    for text in texts:
        del text["about.yaml"]
    same_plan = all((plan.get(key) or []) == (before.get(key) or []) for key in ("arms", "left_out", "tasks"))
    same_files = merged.warnings == there.warnings and merged.records.keys() == there.records.keys()
    interventions = [archive_interventions.contents(include(each)) for each in (merged, there)]
    return same_plan and same_files and texts[0] == texts[1] and interventions[0] == interventions[1]


def exclude(label: str, run: str, because: str | None) -> bool:
    """Leaves a run out of measured results, or counts it again where ``because`` is None; whether that changed them."""
    with archive.changing():
        return _exclude(label, run, because)


def _exclude(label: str, run: str, because: str | None) -> bool:
    folder = archive.folder(label)
    there = archive.read(folder)
    row = rows_by_run(include(there)).get(run)
    if row is None or row["state"] == NOT_RUN or there.excluded.get(run) == because:
        return False
    others = [each for each in there.exclusions if measurement(row) != (each.run, each.finished, each.device)]
    if because is not None:
        metrics = include(there).metrics
        finals = metrics[metrics["final"] & (metrics["run"] == run)]
        values = dict(zip(finals["metric"].astype(str), finals["value"]))
        others.append(Exclusion(run, because, row["finished"], row["device"], values))
    archive.write_exclusions(folder, sorted(others, key=lambda each: each[:1] + each[2:4]))
    return True
