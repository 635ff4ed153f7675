"""Leaves runs out of collected results that a person has excluded, and says so with their own values.

An exclusion is of one measurement of a run. If the run is trained again, the new measurement counts, and the exclusion
stays on record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from results.tables import Collected, Exclusion
from run_format import EXCLUDED

if TYPE_CHECKING:
    import pandas as pd


def exclude(whole: Collected, exclusions: Sequence[Exclusion]) -> Collected:
    """Leaves out the runs whose measurement in ``whole``, which has nothing left out yet, is one of ``exclusions``."""
    runs = whole.runs
    reasons = {(each.run, each.finished, each.device): each.because for each in exclusions}
    measurements = zip(runs["run"], runs["finished"], runs["device"])
    excluded = {measured[0]: reasons[measured] for measured in measurements if measured in reasons}
    exclusions = [each for each in exclusions if each.run in set(runs["run"])]
    if not excluded:
        return replace(whole, exclusions=exclusions)
    left_out = runs["run"].isin(excluded)
    changed = {
        "state": runs["state"].mask(left_out, EXCLUDED),
        "cause": runs["cause"].mask(left_out, runs["run"].map(excluded)),
    }
    return replace(
        whole,
        runs=runs.assign(**changed),
        metrics=_without(whole.metrics, excluded),
        curves=_without(whole.curves, excluded),
        repeats=_without(whole.repeats, excluded),
        examples=_kept(whole.examples, excluded),
        records=_kept(whole.records, excluded),
        interventions=_kept(whole.interventions, excluded),
        excluded=excluded,
        exclusions=exclusions,
        with_excluded=whole,
    )


def include(collected: Collected) -> Collected:
    """The results with nothing left out."""
    return replace(collected.with_excluded or collected, excluded={}, exclusions=[], with_excluded=None)


def sentences(
    collected: Collected, metric: str, label: str, unit: str, decimals: int, label_of: Mapping[str, str]
) -> Iterator[str]:
    """One for every measurement that is left out, with its own value of the reported metric, if it has one.

    A reader has to see what the exclusion changes. label_of: the names of the arms.
    """
    for each in collected.exclusions:
        cells = collected.runs[collected.runs["run"] == each.run]
        if cells.empty:
            continue
        arms = ", ".join(dict.fromkeys(label_of.get(arm, arm) for arm in cells["arm"]))
        where = f"{each.run} ({arms}, seed {cells['seed'].iloc[0]})"
        subject = f"Run {where}" if each.run in collected.excluded else f"A measurement of {where} that was repeated"
        value = each.values.get(metric)
        own = f" Its own {label} is {value:.{decimals}f} {unit}." if value is not None else ""
        yield f"{subject} is left out: {each.because.rstrip('.')}.{own}"


def _without(table: pd.DataFrame, runs: Mapping[str, str]) -> pd.DataFrame:
    return table[~table["run"].isin(runs)].reset_index(drop=True)


def _kept(files: Mapping[str, Path], runs: Mapping[str, str]) -> dict[str, Path]:
    return {run: path for run, path in files.items() if run not in runs}
