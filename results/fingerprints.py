"""Runs of one table must be of one code and one data set; a mixture is refused, or stated on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import SuiteError
from run_format import DONE

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"code_fingerprint": "code", "data_fingerprint": "data"}


class MixedFingerprints(SuiteError):
    """Finished runs of one table that come from different code or data."""


def check(runs: pd.DataFrame, *, mixed: bool = False) -> list[str]:
    """Sentences for the report about mixtures of code and data among the finished ``runs``.

    Raises MixedFingerprints where fingerprints differ and ``mixed`` is not set.
    """
    if not mixed and (refused := mixtures(runs, "would be averaged")):
        raise MixedFingerprints(f"{refused[0]} Repeat the runs that differ, or average them all the same with --mixed")
    return mixtures(runs, "are averaged here")


def mixtures(runs: pd.DataFrame, relation: str) -> list[str]:
    """A sentence for each kind of fingerprint that differs among the finished ``runs`` of one task.

    relation: the verb of the sentence. Different tasks compute different things on different data, so the runs of one
    task are not compared with those of another.
    """
    finished = runs[runs["state"] == DONE]
    several_tasks = finished["task"].nunique() > 1
    sentences = []
    for task, of_task in finished.groupby("task", sort=False):
        for column, kind in KINDS.items():
            groups = of_task.groupby(of_task[column].replace("", "unknown"))["run"].unique()
            if len(groups) > 1:
                listed = "; ".join(f"{fingerprint}: {_some(list(ids))}" for fingerprint, ids in groups.items())
                of = f"of {task} with different {kind}" if several_tasks else f"of different {kind}"
                sentences.append(f"Runs {of} {relation} ({kind} fingerprint {listed}).")
    return sentences


def _some(runs: list[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(sorted(runs)[:shown]) + more
