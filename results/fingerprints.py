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
    finished = runs[runs["state"] == DONE]
    sentences = []
    for column, kind in KINDS.items():
        groups = finished.assign(key=finished[column].replace("", "unknown")).groupby("key")["run"].unique()
        if len(groups) > 1:
            listed = "; ".join(f"{key}: {_some(list(found))}" for key, found in groups.items())
            sentences.append(f"Runs of different {kind} are averaged here ({kind} fingerprint {listed}).")
    if sentences and not mixed:
        first = sentences[0].replace("are averaged here", "would be averaged")
        raise MixedFingerprints(f"{first} Repeat the odd ones, or say --mixed to average them all the same")
    return sentences


def _some(runs: list[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(sorted(runs)[:shown]) + more
