"""The command ``collect=``: writes the results of a sweep into measured results, which can be committed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from errors import ConfigError
from run_format import NOT_RUN
from sweeps.collection import CollectionPlan
from sweeps.collection_file import is_collection
from sweeps.commands import planned, states


def collect(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Merges the results of a sweep's run folders, or of other measured results, into ``results/measured/<into>``."""
    from reports.specification import COMPLEXITY
    from results import archive
    from results.label import into_label

    label, measured = given.pop("into", None), given.pop("measured", None)
    if name == COMPLEXITY:
        if label or measured or given:
            raise ConfigError(f"collect={COMPLEXITY} counts models and takes no other word")
        from measurements.commands import collect_complexity
        from reports.content import complexity

        return collect_complexity(options, complexity)
    if not label:
        raise ConfigError("collect=NAME into=LABEL: under which name?")
    archive.folder(str(label))
    if measured is None:
        by_label = _of_runs(name, given, str(label))
    elif is_collection(name):
        raise ConfigError(f"measured={measured} is of one sweep, and {name} collects several: collect=SWEEP takes it")
    else:
        by_label = {str(label): _of_measured(name, str(measured), given, options)}
    files: list[Path] = []
    for into, (plan, collected) in by_label.items():
        title = f"{plan['sweep']}, protocol {plan['protocol']}"
        written = into_label(collected, plan, into, title=title, date=date.today().isoformat(), note=options.note or "")
        for warning in collected.warnings:
            print(f"run.py: {warning}", file=sys.stderr)
        if not options.json:
            print("\n".join(map(str, written)) or f"results/measured/{into} holds all of this already")
        files += written
    if options.json:
        print(json.dumps({"files": [str(file) for file in files]}))
    return 0


def _of_runs(name: str, given: dict[str, Any], label: str) -> dict[str, tuple[dict[str, Any], Any]]:
    """Plan and results by the label that they go to: of a collection, one label for each of its sweeps, named after it.

    So each sweep has the report and the differences to its baseline that it has elsewhere. Sweeps of which no run has
    begun are left out. Raises ConfigError where none has.
    """
    from results.collect import collect as collect_runs

    plan, runs_dir = planned(name, given)
    of_sweeps = (
        {f"{label}-{each.sweep}": each for each in plan.sweeps} if isinstance(plan, CollectionPlan) else {label: plan}
    )
    collected = {
        into: (each.as_dict(), collect_runs(each.as_dict(), runs_dir, states(each, runs_dir)))
        for into, each in of_sweeps.items()
    }
    begun = {into: each for into, each in collected.items() if (each[1].runs["state"] != NOT_RUN).any()}
    if not begun:
        raise ConfigError(
            f"collect={name}: none of its runs has begun in {runs_dir}; give its settings and runs_dir=PATH"
        )
    return begun


def _of_measured(
    name: str, measured: str, given: dict[str, Any], options: argparse.Namespace
) -> tuple[dict[str, Any], Any]:
    """Measured results by their name, or by the path of their folder, e.g. in another clone.

    Of measured results of another sweep, the runs that this one, planned by ``given``, has as well.
    """
    from results import archive
    from results.fill import shared
    from results.plans import check_plan

    is_path = "/" in measured
    folder = Path(measured).expanduser() if is_path else archive.folder(measured)
    if is_path and not (folder / "about.yaml").is_file():
        raise ConfigError(f"measured={measured}: no measured results there, i.e. no about.yaml")
    collected = archive.read(folder)
    plan = archive.plan_of(collected)
    if options.note:
        raise ConfigError(f"--note is about run folders; measured={measured} has notes of its own")
    if plan["sweep"] == name:
        if given:
            raise ConfigError(f"measured={measured} names results; {next(iter(given))} cannot change them")
        return plan, collected
    own = planned(name, given)[0].as_dict()
    runs = [entry for entry in own["runs"] if entry["run"] in set(collected.runs["run"])]
    if not runs:
        raise ConfigError(
            f"measured={measured} is of sweep {plan['sweep']} and has no run of {name} as planned here; "
            "the settings that its runs were trained with make them the same runs"
        )
    arms = {entry["arm"] for entry in runs}
    taken = {**own, "runs": runs, "arms": [arm for arm in own["arms"] if arm["name"] in arms], "left_out": []}
    taken["changed"] = plan.get("changed") or {}  # the runs are the same, so this says what is known of them there
    check_plan(taken)  # the baseline must be among the arms
    about = {key: collected.about[key] for key in ("date", "hardware", "note") if collected.about.get(key)}
    return taken, replace(shared(collected, taken, {entry["run"] for entry in runs}), about=about)
