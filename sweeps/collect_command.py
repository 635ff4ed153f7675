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
from sweeps.commands import planned


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
    plan, collected = _of_runs(name, given) if measured is None else _of_measured(name, str(measured), given, options)
    files = into_label(
        collected,
        plan,
        str(label),
        title=f"{name}, protocol {plan['protocol']}",
        date=date.today().isoformat(),
        note=options.note or "",
    )
    for warning in collected.warnings:
        print(f"run.py: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps({"files": [str(file) for file in files]}))
    else:
        print("\n".join(map(str, files)) or f"results/measured/{label} holds all of this already")
    return 0


def _of_runs(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    from results.collect import collect as collect_runs

    plan, runs_dir = planned(name, given)
    return plan.as_dict(), collect_runs(plan.as_dict(), runs_dir)


def _of_measured(
    name: str, measured: str, given: dict[str, Any], options: argparse.Namespace
) -> tuple[dict[str, Any], Any]:
    """Measured results by their name, or by the path of their folder, e.g. in another clone.

    Of measured results of another sweep, the arms that this one, planned by ``given``, has as well.
    """
    from results import archive
    from results.fill import shared
    from results.plan_union import same_arm
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
    arms = {arm["name"]: arm for arm in own["arms"]}
    runs = [entry for entry in plan["runs"] if entry["arm"] in arms]
    for key in ("protocol", "experiment"):
        if plan.get(key) != own[key]:
            raise ConfigError(f"measured={measured} is of {key} {plan.get(key)}, {name} as planned here of {own[key]}")
    if not runs:
        raise ConfigError(f"measured={measured} is of sweep {plan['sweep']} and has no arm of {name}")
    shared_arms = [same_arm(arm, arms[arm["name"]], measured) for arm in plan["arms"] if arm["name"] in arms]
    plan = {**plan, "sweep": name, "baseline": own["baseline"], "arms": shared_arms, "runs": runs, "left_out": []}
    check_plan(plan)  # the baseline must be among the arms
    of_collection = ("date", "hardware", "note")
    about: dict[str, Any] = {key: value for key, value in collected.about.items() if key in of_collection}
    return plan, replace(shared(collected, plan, {entry["run"] for entry in runs}), about=about)
