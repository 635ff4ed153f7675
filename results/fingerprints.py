"""Runs of one table must be of one code and one data set; a mixture is refused, or stated on the page.

Which of them the present code would compute alike is a column of the runs table, added for a report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from errors import SuiteError
from results.plans import Plan, tasks_of
from results.tables import Collected
from run_format import DONE

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"code_fingerprint": "code", "data_fingerprint": "data"}
PRESENT_CODE = "present_code"  # "yes", "no", or nothing where it cannot be told and of a run that is not done
# a recorded code fingerprint, the run's recipe, its other settings -> whether that is the present code, None if unknown
IsPresent = Callable[[str, str, Mapping[str, Any]], bool | None]


class MixedFingerprints(SuiteError):
    """Finished runs of one table that come from different code or data."""


def check(runs: pd.DataFrame, *, mixed: bool = False, own_data: bool = False) -> list[str]:
    """Sentences for the report about mixtures of code and data among the finished ``runs``.

    own_data: every arm has data of its own. Raises MixedFingerprints where fingerprints differ and ``mixed`` is not
    set.
    """
    if not mixed and (refused := mixtures(runs, "would be averaged", own_data)):
        raise MixedFingerprints(f"{refused[0]} Repeat the runs that differ, or average them all the same with --mixed")
    return mixtures(runs, "are averaged here", own_data)


def mixtures(runs: pd.DataFrame, relation: str, own_data: bool = False) -> list[str]:
    """A sentence for each kind of fingerprint that differs among the finished ``runs`` of one task.

    relation: the verb of the sentence. Different tasks compute different things on different data, so the runs of one
    task are not compared with those of another.
    """
    finished = runs[runs["state"] == DONE]
    several_tasks = finished["task"].nunique() > 1
    sentences = []
    for task, of_task in finished.groupby("task", sort=False):
        by_arm = [of_arm for _, of_arm in of_task.groupby("arm", sort=False)] if own_data else [of_task]
        compared = [("code_fingerprint", of_task), *(("data_fingerprint", of_arm) for of_arm in by_arm)]
        for column, part in compared:
            kind = KINDS[column]
            groups = part.groupby(part[column].replace("", "unknown"))["run"].unique()
            if len(groups) > 1:
                listed = "; ".join(f"{fingerprint}: {_some(list(ids))}" for fingerprint, ids in groups.items())
                of = f"of {task} with different {kind}" if several_tasks else f"of different {kind}"
                sentences.append(f"Runs {of} {relation} ({kind} fingerprint {listed}).")
    return sentences


def with_present_code(collected: Collected, plan: Plan, is_present: IsPresent) -> Collected:
    """The same with the column PRESENT_CODE in its runs table."""
    runs = collected.runs
    experiments = {task["name"]: task.get("experiment") or "" for task in tasks_of(plan, runs["task"])}
    models = {arm["name"]: arm.get("config") or {} for arm in plan["arms"]}
    mixers = {arm: (model.get("mixer"), model.get("mixer_source")) for arm, model in models.items()}
    words = {True: "yes", False: "no", None: ""}
    known: dict[tuple[str, str, Any], str] = {}
    column = []
    for code, task, arm, state in zip(runs["code_fingerprint"], runs["task"], runs["arm"], runs["state"]):
        key = (str(code or ""), str(experiments.get(task, "")), mixers.get(arm, (None, None)))
        if state == DONE and key not in known:
            mixer, source = key[2]
            settings = {**(plan.get("changed") or {}), "model.mixer": mixer}
            if source is not None:
                settings["model.mixer_source"] = source
            known[key] = words[is_present(key[0], key[1], settings)]
        column.append(known[key] if state == DONE else "")
    return replace(collected, runs=runs.assign(**{PRESENT_CODE: column}))


def present_code(runs: pd.DataFrame) -> str | None:
    """What PRESENT_CODE says of the finished ``runs``: yes, no, mixed, or unknown; None where it was not asked."""
    words = set(runs[runs["state"] == DONE][PRESENT_CODE]) if PRESENT_CODE in runs else set()
    if not words:
        return None
    return (words.pop() or "unknown") if len(words) == 1 else "mixed"


def _some(runs: list[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(sorted(runs)[:shown]) + more
