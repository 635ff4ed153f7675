"""Checks site.yaml, the data sets, and the run that the command line names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.finding import ABSENT, OK, PROBLEM, WARNING, CheckInputs, Finding, enumeration, guarded

if TYPE_CHECKING:
    from experiments.data.listing import Split
    from experiments.schema import Data

COUNT_SECONDS = 1.0  # for the images of one split


def site(inputs: CheckInputs) -> Iterator[Finding]:
    from experiments.config import merge, read_site, site_settings, users_site

    files = [path for path in (inputs.site_path, users_site()) if os.path.lexists(path)]
    if not files:
        yield Finding("site", ABSENT, "no site.yaml", "copy site.example.yaml to site.yaml to state data roots once")
        return
    entries = read_site(inputs.site_path)
    merge(site_settings(entries, dataset=""))  # each data set has a finding of its own
    sets = "sets" if len(files) == 1 else "set"
    yield Finding("site", OK, f"{' and '.join(map(str, files))} {sets} {', '.join(entries) or 'nothing'}")


def data(inputs: CheckInputs) -> Iterator[Finding]:
    """Checks the data of the run that the command line names, and the data sets of site.yaml and of the recipes."""
    from experiments.config import merge, read_recipe, recipe_names, resolve
    from experiments.data.registry import needs_root

    recipes: dict[str, list[str]] = {}
    for recipe in recipe_names():
        config = merge(read_recipe(recipe))
        if needs_root(config):
            recipes.setdefault(config.data.dataset, []).append(recipe)
    stated = inputs.site.get("data")
    stated = stated if isinstance(stated, Mapping) else {}  # anything else is reported by the check of site.yaml
    checked = set()
    if inputs.experiment:
        checked = {resolve(inputs.experiment, inputs.overrides).data.dataset}
        check = partial(_data_of_run, "experiment", inputs.experiment, inputs.overrides, inputs.site)
        yield from guarded("experiment", check)
    for dataset in sorted({*recipes, *stated} - checked, key=str):
        name = f"data {dataset}"
        if dataset not in recipes:
            message = f"no recipe uses {dataset}; recipes use {' and '.join(recipes)}"
            yield Finding(name, WARNING, message, "correct its name in site.yaml if one of these is meant")
        elif not stated.get(dataset):
            advice = f"write its root under data.{dataset} in site.yaml, or data.root=PATH on the command line"
            message = f"no root is set; experiment={' and '.join(recipes[dataset])} would need it"
            yield Finding(name, ABSENT, message, advice)
        else:  # only this data set is checked: neither the weights a recipe starts from nor the rest of the site
            check = partial(_data_of_run, name, recipes[dataset][0], {"init": None}, {"data": stated})
            yield from guarded(name, check)


def _data_of_run(name: str, recipe: str, overrides: Mapping[str, Any], site: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks the root of a run's data set as the data set itself does, and counts images in class folders."""
    from experiments.config import resolve
    from experiments.data.registry import LABELLED_IMAGES, check_root, dataset_entry, needs_root
    from experiments.identity import origin

    config = resolve(recipe, overrides, site=site)
    origin(config.init)  # refuses a file that does not exist
    if not needs_root(config):
        yield Finding(name, OK, f"{recipe} needs no images")
        return
    check_root(config)
    data = config.data
    message = f"{data.root or data.reader}" + (f": {data.num_classes} classes" if data.num_classes else "")
    in_folders = not data.reader and data.root is not None and Path(data.root).is_dir()
    if dataset_entry(data.dataset) is LABELLED_IMAGES and in_folders:
        yield _count_images(name, message, data)
    else:
        yield Finding(name, OK, f"{message}; a run checks its images when it opens them")


def _count_images(name: str, message: str, data: Data) -> Finding:
    """Counts the images in the class folders of both splits, and names class folders without any."""
    from experiments.data.label_list import labelled_split
    from experiments.data.listing import SUFFIXES

    empty_folders = []
    for split in (data.train_split, data.eval_split):
        images, empty, complete = _count(labelled_split(Path(str(data.root)), split))
        message += f", {'' if complete else 'more than '}{images:,} {split} images"
        empty_folders += [f"{split}/{folder}" for folder in empty]
    if not empty_folders:
        return Finding(name, OK, message)
    message += f"; no image can be seen in {len(empty_folders)} folders{enumeration(empty_folders)}"
    return Finding(name, PROBLEM, message, f"give each class {', '.join(SUFFIXES)} files that you can read")


def _count(split: Split) -> tuple[int, list[str], bool]:
    """Images of a split, its classes without any, and whether all were counted in time."""
    from experiments.data.listing import class_names, files, list_split

    if split.is_archive or split.labels:
        return len(list_split(split)), [], True
    deadline = time.monotonic() + COUNT_SECONDS
    counted: dict[str, int] = {}
    for name, _ in files(split.path):
        label = name.partition("/")[0]
        if label not in counted and counted and time.monotonic() > deadline:
            return sum(counted.values()), [], False
        counted[label] = counted.get(label, 0) + 1
    return sum(counted.values()), [label for label in class_names(split) if label not in counted], True
