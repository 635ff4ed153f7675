"""What a sweep or a recipe is, for ``NAME --help``: the record in its file, and what can be chosen of it. No torch."""

from __future__ import annotations

from pathlib import Path

from errors import ConfigError
from experiments.config import RECIPES, recipe_names
from pasted_command import command
from sweeps.collection_file import read_collection
from sweeps.sweep_file import COLLECTION, KIND, arms_with, read_file, read_sweep, sweep_names
from yaml_files import own_file


def of_sweep(name: str) -> list[str]:
    """Lines on a sweep or a collection; on a NAME that is none, which run or report it may be, nothing."""
    if not name.endswith(".yaml") and name not in sweep_names():
        return []
    path, content = read_file(name)
    lines = header(path)
    if content.get(KIND) == COLLECTION:
        collection = read_collection(name)
        lines += ["", f"tables     {', '.join(collection.parts)}  (tables={next(iter(collection.parts))} takes some)"]
        return [
            *lines,
            f"protocols  {', '.join(f'{each} (seeds {_seeds(s)})' for each, s in collection.seeds.items())}",
        ]
    sweep = read_sweep(name)
    for protocol, recipe in sweep["recipes"].items():
        lines += ["", f"protocol={protocol}: recipe {recipe}, baseline {sweep['baseline'][protocol]}"]
        lines += [f"  {key}={value}" for key, value in sweep["settings"].get(protocol, {}).items()]
        lines.append(f"  arms={','.join(arms_with(protocol, sweep))}")
    lines += ["", f"seeds={_seeds(sweep['seeds'])}"]
    if sweep["downstream"]:
        lines.append(f"tasks={','.join(sweep['downstream'])}")
    lines += ["", "arms and their settings:"]
    for arm, body in sweep["arms"].items():
        own = {key: value for key, value in body.items() if key != "label" and value != {}}
        settings = ", ".join(f"{key}={value}" for key, value in own.items())
        lines.append(f"  {arm:<16} {body.get('label', arm)}" + (f": {settings}" if settings else ""))
    return lines


def of_recipe(name: str) -> list[str]:
    """Lines on a recipe: its file, which says all that it sets."""
    path = own_file("experiment", name, recipe_names()) or RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no experiment is called {name!r}; `{command('list')}` shows them")
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def header(path: Path) -> list[str]:
    """The comment that a file begins with, which is its record."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def _seeds(seeds: list[int]) -> str:
    return ",".join(map(str, seeds))
