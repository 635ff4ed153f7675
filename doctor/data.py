"""site.yaml, the data sets, and the run that was asked about."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from doctor.finding import ABSENT, OK, PROBLEM, ROOT, WARNING, Asked, Finding, guarded, listed
from errors import ConfigError, unknown

COUNT_SECONDS = 1.0  # for the images of one split
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # what timm reads from class folders, in either case


def site(asked: Asked) -> Iterator[Finding]:
    from experiments.config import merge, read_yaml, site_settings

    if not os.path.lexists(asked.site_path):
        yield Finding("site", ABSENT, "no site.yaml", "copy site.example.yaml to site.yaml to state data roots once")
        return
    entries, known = read_yaml(asked.site_path), read_yaml(ROOT / "site.example.yaml")
    for entry in entries.keys() - known.keys():
        raise ConfigError(f"site.yaml: {unknown('entry', entry, known)}")
    merge(site_settings(entries, dataset=""))  # each data set is a finding of its own
    yield Finding("site", OK, f"{asked.site_path} sets {', '.join(entries) or 'nothing'}")


def data(asked: Asked) -> Iterator[Finding]:
    """The data of the run that was asked about, the data sets of site.yaml, and those of recipes that are nowhere."""
    from experiments.config import merge, read_recipe, recipe_names, resolve
    from experiments.data.registry import needs_root

    recipes: dict[str, list[str]] = {}
    for recipe in recipe_names():
        config = merge(read_recipe(recipe))
        if needs_root(config):
            recipes.setdefault(config.data.dataset, []).append(recipe)
    stated = asked.site.get("data")
    stated = stated if isinstance(stated, Mapping) else {}  # else the check of site.yaml says so
    seen = set()
    if asked.experiment:
        seen = {resolve(asked.experiment, asked.overrides).data.dataset}
        yield from guarded("experiment", partial(_images, "experiment", asked.experiment, asked.overrides, asked.site))
    for dataset in sorted({*recipes, *stated} - seen, key=str):
        name = f"data {dataset}"
        if dataset not in recipes:
            found = f"no recipe is of {dataset}, they are of {' and '.join(recipes)}"
            yield Finding(name, WARNING, found, "correct its name in site.yaml if one of these is meant")
        elif not stated.get(dataset):
            advice = f"write its root under data.{dataset} in site.yaml, or data.root=PATH on the command line"
            yield Finding(name, ABSENT, f"nowhere; experiment={' and '.join(recipes[dataset])} would need it", advice)
        else:  # whatever a recipe starts from, and whatever else the site says, is not asked here
            yield from guarded(name, partial(_images, name, recipes[dataset][0], {"init": None}, {"data": stated}))


def _images(name: str, recipe: str, given: Mapping[str, Any], site: Mapping[str, Any]) -> Iterator[Finding]:
    """The images of a run: where they are, how many classes and images."""
    from experiments.config import resolve
    from experiments.data.layout import split_folder
    from experiments.data.registry import check_root, needs_root
    from experiments.identity import origin

    config = resolve(recipe, given, site=site)
    origin(config.init)  # refuses a file that is not there
    if not needs_root(config):
        yield Finding(name, OK, f"{recipe} needs no images")
        return
    check_root(config)
    data = config.data
    found = f"{data.root or data.reader}: {data.num_classes} classes"
    if data.reader or data.root is None or not Path(data.root).is_dir():
        yield Finding(name, OK, f"{found}; its images are seen when a run opens it")
    else:
        advice = f"give each class {', '.join(IMAGE_SUFFIXES)} files that you can read"
        lacking = []
        for split in (data.train_split, data.eval_split):
            images, empty, whole = _count(split_folder(Path(data.root), split))
            found += f", {'' if whole else 'more than '}{images:,} {split} images"
            lacking += [f"{split}/{folder}" for folder in empty]
        found += f"; no image can be seen in {len(lacking)} folders{listed(lacking)}" if lacking else ""
        yield Finding(name, PROBLEM if lacking else OK, found, advice)


def _count(split: Path) -> tuple[int, list[str], bool]:
    """Images below the class folders of a split, classes without any, and whether the time was enough to see all."""
    deadline = time.monotonic() + COUNT_SECONDS
    total, empty = 0, list[str]()
    for folder in sorted(entry for entry in split.iterdir() if entry.is_dir()):
        before = total
        for _, _, names in os.walk(folder, followlinks=True):
            total += sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
            if time.monotonic() > deadline:
                return total, empty, False
        if total == before:
            empty.append(folder.name)
    return total, empty, True
