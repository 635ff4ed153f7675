"""Runs of one table must be of one code and one data set; anything else is refused, or said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import SuiteError
from results.run_folder import DONE

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"code_fingerprint": "code", "data_fingerprint": "data"}


class MixedFingerprints(SuiteError):
    """Finished runs of one table that come from different code or data."""


def check(runs: pd.DataFrame, *, mixed: bool = False) -> list[str]:
    """Sentences for the report about code and data that differ among the finished ``runs``.

    Raises MixedFingerprints where they do and ``mixed`` is not set.
    """
    if not mixed and (refused := mixtures(runs, "would be averaged")):
        raise MixedFingerprints(f"{refused[0]} Repeat the odd ones, or say --mixed to average them all the same")
    return mixtures(runs, "are averaged here")


def mixtures(runs: pd.DataFrame, relation: str) -> list[str]:
    """A sentence per kind of fingerprint that differs among the finished ``runs``; relation: its verb."""
    finished = runs[runs["state"] == DONE]
    sentences = []
    for column, kind in KINDS.items():
        groups = finished.assign(key=finished[column].replace("", "unknown")).groupby("key")["run"].unique()
        if len(groups) > 1:
            listed = "; ".join(f"{key}: {_some(list(ids))}" for key, ids in groups.items())
            sentences.append(f"Runs of different {kind} {relation} ({kind} fingerprint {listed}).")
    return sentences


def _some(runs: list[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(sorted(runs)[:shown]) + more
