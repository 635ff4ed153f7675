"""Runs that a launch would not use, as they differ from planned ones in one setting only. No torch.

So a forgotten or mistyped setting is seen before a sweep is trained a second time. Thousands of run folders are looked
at, so their configs, which this program wrote, are compared line by line, and no YAML is parsed.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import MISSING
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from errors import ConfigError, UnreadableError
from experiments.config import SHORT, get
from experiments.own_mixer import is_own, name_of
from experiments.schema import FIELDS, SECTIONS
from experiments.tasks.registry import sections_of_other_tasks
from pasted_command import same_settings
from results import archive
from run_format import CONFIG, STATE, SUMMARY
from sweeps.collection import CollectionPlan
from sweeps.plan import SWEEPS, Plan, PlannedRun, sweep_names
from sweeps.sweep_file import ARM_PARTS, read_sweep
from untrusted_files import content, listed
from yaml_files import load, write_yaml

OF_ONE_PLAN = ("seed", "init")  # they tell runs of one plan apart
SEED = re.compile(r"^seed: .*\n", re.MULTILINE)
SHOWN = 3  # values of a setting
Values = tuple[str, ...]  # of the settings of a run, as YAML writes them, in the order of ``_keys``


def sentences(plan: Plan, runs_dir: Path, to_do: Collection[str], options: Iterable[str] = ()) -> Iterator[str]:
    """A line for each setting in which alone runs that exist differ from planned ones, and how to use them.

    There is none about a sweep that has begun, as its settings were chosen then. to_do: the planned runs that a launch
    would train; options: those of the command line that belong to the command that uses the other runs.
    """
    runs = [run for run in plan.distinct().values() if run.id in to_do and not run.parent]
    if not runs or any(_has_begun(runs_dir / run) for run in plan.distinct()):
        return
    for (key, planned), found in _in_folders(plan, runs, runs_dir).items():
        values = [_word(load(value, key)) for value, _ in found.most_common(SHOWN)]
        number, others = sum(found.values()), " or others" if len(found) > SHOWN else ""
        subject, object_ = ("1 run differs", "it") if number == 1 else (f"{number} runs differ", "them")
        yield (
            f"{subject} from planned ones in one setting: {key}={' or '.join(values)}{others}, not "
            f"{_word(load(planned, key))}; to use {object_}: {_with(plan, key, values[0], options)}; otherwise all "
            "planned ones are trained, here or in another runs_dir=PATH"
        )
    for (key, planned), labels in _in_measured(plan).items():
        (label, value), *rest = labels.items()
        more = f" and {len(rest)} more" if rest else ""
        yield (
            f"results/measured/{label}{more}: runs of this sweep that differ in one setting: {key}={value}, not "
            f"{planned}; to use them (with --fresh, to train them again): {_with(plan, key, value, options)}; "
            "otherwise all planned ones are trained"
        )


def _with(plan: Plan, key: str, value: str, options: Iterable[str]) -> str:
    """The command that plans the sweep with another value of a setting."""
    words = [word for word in plan.words if SHORT.get(name := word.partition("=")[0], name) != key]
    return same_settings("sweep", plan.given, [*words, f"{key}={value}"], *options)


def _has_begun(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (SUMMARY, STATE))


def _in_folders(plan: Plan, runs: Iterable[PlannedRun], runs_dir: Path) -> dict[tuple[str, str], Counter[str]]:
    """Setting and planned value → the values of the runs that differ in it alone, with the number of these runs."""
    of_arms = {(run.arm, run.task): run.config for run in runs}  # seeds are not compared
    planned = {_values(write_yaml(config.as_dict())) for config in of_arms.values()}
    experiments = tuple({f"{config.experiment}-" for config in of_arms.values()})
    known = plan.distinct()
    alike: defaultdict[str, list[Path]] = defaultdict(list)  # runs that differ in their seed only, by their config
    with suppress(UnreadableError):  # other parts of a launch name what they cannot read
        for folder in listed(runs_dir):
            if folder.name.startswith(experiments) and folder.name not in known:
                with suppress(FileNotFoundError, UnreadableError):
                    alike[re.sub(SEED, "", content(folder / CONFIG).decode(errors="replace"), count=1)].append(folder)
    found: dict[tuple[str, str], Counter[str]] = {}
    for config, folders in alike.items():
        try:
            task, there = _values(config)
        except ConfigError:
            continue
        if (task, there) in planned:
            continue  # further seeds of the plan
        for key, value, instead in dict.fromkeys(_only_difference(task, there, own) for own in planned):
            if key and not _is_by_design(plan, key, value) and (begun := sum(map(_has_begun, folders))):
                found.setdefault((key, instead), Counter())[value] += begun
    return found


def _only_difference(task: str, there: Values, planned: tuple[str, Values]) -> tuple[str, str, str]:
    """Setting, value there and planned value; empty where the two differ in none or in more than one."""
    of_task, own = planned
    different = [each for each in zip(_keys(task), there, own) if each[1] != each[2]]
    return different[0] if of_task == task and len(different) == 1 else ("", "", "")


def _values(config: str) -> tuple[str, Values]:
    """The task and the values of the settings that it has. Raises ConfigError where it is not known."""
    lines = _lines(config)
    task = lines.get("task", "")
    if is_own(mixer := lines.get("model.mixer", "")):
        lines["model.mixer"] = name_of(mixer)  # wherever its file lies
    return task, tuple(lines.get(key, neutral) for key, neutral in _keys(task).items())


@cache
def _keys(task: str) -> dict[str, str]:
    """The settings that decide the numbers of a task, with the values that they have where a config lacks them."""
    foreign = sections_of_other_tasks(task)
    keys = [
        key
        for key, f in FIELDS.items()
        if f.metadata["scientific"] and key not in OF_ONE_PLAN and key.partition(".")[0] not in foreign
    ]
    neutral = {key: FIELDS[key].metadata["neutral"] for key in keys}
    return {
        key: "" if value is MISSING else _lines(write_yaml({"value": value}))["value"] for key, value in neutral.items()
    }


def _lines(text: str) -> dict[str, str]:
    """Dotted key → value as it is written, of a config as ``write_yaml`` writes it."""
    found: dict[str, str] = {}
    section = key = ""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.isidentifier():
            section, key = (name, "") if name in SECTIONS else ("", name)
        elif colon and section and name.startswith("  ") and name[2:].isidentifier():
            key = f"{section}.{name[2:]}"
        else:  # a list, or a long text, goes on
            colon, value = "", f"{found.get(key, '')}\n{line.strip()}"
        found[key] = value.strip() if colon else value
    return found


def _word(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _is_by_design(plan: Plan, key: str, value: str) -> bool:
    """Whether the arms of this sweep differ in a setting, or another sweep file gives it this value."""
    parts = [part.sweep for part in plan.sweeps] if isinstance(plan, CollectionPlan) else [plan.given]
    if any(key == name for part in parts for name, _ in _set_by_arms(part)):
        return True
    others = [sweep for sweep in sweep_names() if sweep not in parts and _names(sweep, key)]
    return any(key == name and load(value, key) == given for sweep in others for name, given in _set_by(sweep))


@cache
def _names(sweep: str, key: str) -> bool:
    """Whether a sweep file has the key, which is seen sooner than it is parsed; a collection has no settings."""
    text = (SWEEPS / f"{sweep}.yaml").read_text(encoding="utf-8")
    return any(f"{name}:" in text for name in (key, *(short for short, long in SHORT.items() if long == key)))


@cache
def _set_by_arms(sweep: str) -> list[tuple[str, Any]]:
    """The settings of the arms of a sweep file, by their long keys, with their values."""
    arms = read_sweep(sweep)["arms"].values()
    parts = [part for arm in arms for part in (arm, *arm["downstream"].values())]
    return [(SHORT.get(key, key), value) for part in parts for key, value in part.items() if key not in ARM_PARTS]


@cache
def _set_by(sweep: str) -> list[tuple[str, Any]]:
    """Those, and the settings of its protocols."""
    of_protocols = [settings.items() for settings in read_sweep(sweep)["settings"].values()]
    return [*_set_by_arms(sweep), *((SHORT.get(key, key), value) for key, value in chain(*of_protocols))]


def _in_measured(plan: Plan) -> dict[tuple[str, str], dict[str, str]]:
    """Setting and planned value → the labels of results of this sweep that differ in it alone, with their values.

    The configs of their runs are not kept, but the settings are that a command line gave their plan; one that this
    plan was not given may have been forgotten.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    models = {run.config.model.name for run in plan.runs}
    for label in archive.labels():
        there = _plan_of_label(label, plan.sweep)
        arms, changed = there.get("arms"), there.get("changed")
        if there.get("protocol") != plan.protocol or not isinstance(arms, list) or not isinstance(changed, dict):
            continue
        key, *others = [key for key in changed if changed[key] != plan.changed.get(key, ...)] or [""]
        if others or key not in FIELDS or key in plan.changed or not plan.changed.keys() <= changed.keys():
            continue
        if models & {arm.get("model") for arm in arms}:
            found.setdefault((key, _word(get(plan.runs[0].config, key))), {})[label] = _word(changed[key])
    return found


def _plan_of_label(label: str, sweep: str) -> dict[str, Any]:
    """What measured results of a sweep say of their plan; empty where they are of another one or cannot be read."""
    with suppress(ConfigError, UnreadableError, FileNotFoundError):  # a report of them says what is wrong
        text = content(archive.folder(label) / "about.yaml")
        if f"sweep: {sweep}".encode() in text:
            plan = load(text, label).get("plan")
            return plan if isinstance(plan, dict) and plan.get("sweep") == sweep else {}
    return {}
