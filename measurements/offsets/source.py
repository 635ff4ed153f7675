"""Whose offsets are measured: a finished run or a weights file; on which images, and where results lie. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from errors import ConfigError, RunFolderError, unknown
from experiments.config import SHORT, get, merge, resolve, scientific, site_settings
from experiments.data.registry import check_root
from experiments.folder.parent import WEIGHTS, why_unfinished
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config

FOLDER = "offsets"
IMAGES = 1000  # v1 Fig. 3
QUERIES = ((0.5, 0.5), (0.25, 0.3), (0.75, 0.7))
PLACES = ("data.root", "data.reader")  # of a data set, which another machine may have elsewhere
NO_OFFSETS = "this model predicts no offsets (model.offsets=zero)"


@dataclass(frozen=True)
class Wanted:
    """What is to be measured. layer: whose samples are drawn over images, None for the last that predicts in stage 3;
    queries: for which tokens, as fractions of height and width."""

    images: int = IMAGES
    layer: str | None = None
    queries: tuple[tuple[float, float], ...] = QUERIES

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> Wanted:
        """Takes its own keys out of those of a command line. Raises ConfigError."""
        images, layer, query = given.pop("images", IMAGES), given.pop("layer", None), given.pop("query", None)
        if type(images) is not int or images < 1:
            raise ConfigError(f"images={images}: give a whole number of at least 1")
        if layer is not None and not re.fullmatch(r"(layer_)?\d+(_\d+)?", str(layer)):
            raise ConfigError(f"layer={layer}: give stage and layer, e.g. layer=layer_3_1")
        if query is None:
            return cls(images, None if layer is None else str(layer))
        pairs = query if isinstance(query, list) and query and isinstance(query[0], list) else [query]
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not all(_is_fraction(number) for number in pair):
                raise ConfigError(f"query={query}: give row and column as fractions of the image, e.g. query=[0.5,0.5]")
        return cls(images, None if layer is None else str(layer), tuple((float(y), float(x)) for y, x in pairs))

    def chosen(self, layers: list[str]) -> str:
        """The layer whose samples are drawn over images. Raises ConfigError where it does not predict offsets."""
        if self.layer is None:
            return ([name for name in layers if name.startswith("layer_3_")] or layers)[-1]
        for name in layers:
            # YAML reads 3_1 as the number 31; a stage has one digit, so the digits say it all
            if re.sub(r"\D", "", name) == re.sub(r"\D", "", self.layer):
                return name
        raise ConfigError(f"{unknown('layer', self.layer, layers)}; other layers reuse the offsets of the one before")


@dataclass(frozen=True)
class Source:
    """name: run id, or name of the file; out: the folder of what is measured; provenance: of a run, as it noted it."""

    name: str
    config: Config
    weights: Path
    out: Path
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        with self.weights.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def key(self, wanted: Wanted) -> dict[str, Any]:
        """What the results depend on: where nothing of this changed, they are not measured again."""
        data = {key: value for key, value in scientific(self.config).items() if key.startswith(("data.", "model."))}
        return {
            "weights_sha256": self.sha256,
            "images": wanted.images,
            "layer": wanted.layer,
            "queries": [list(query) for query in wanted.queries],
            "root": self.config.data.root,
            "experiment": self.config.experiment,
            **data,
        }


def of_run(folder: RunFolder, given: Mapping[str, Any], site: Mapping[str, Any]) -> Source:
    """A finished run; ``given`` and ``site`` say how this machine executes and where its data are.

    Raises ConfigError or RunFolderError in one line.
    """
    frozen = folder.config()
    merge(given)  # refuses what the schema does not know
    for key in given:
        if FIELDS[(long := SHORT.get(key, key))].metadata["scientific"]:
            raise ConfigError(
                f"offsets={folder.id} measures the run as it is, and {key} would change it; for other settings give "
                f"its weights file: offsets={folder.path / WEIGHTS} experiment={frozen.experiment} {long}=…"
            )
    here = site_settings(site, frozen.data.dataset)
    if frozen.data.root and Path(frozen.data.root).exists():
        here = {key: value for key, value in here.items() if key not in PLACES}
    config = merge({key: get(frozen, key) for key in FIELDS}, here, given)
    return of_planned(folder, config)


def of_sweep(runs: Mapping[str, Config], runs_dir: Path) -> dict[str, Source | str]:
    """The runs of a sweep, by id, and in words why one of them has nothing to measure."""
    found: dict[str, Source | str] = {}
    for run, config in runs.items():
        try:
            found[run] = of_planned(RunFolder(runs_dir / run), config)
        except (ConfigError, RunFolderError) as error:
            found[run] = str(error).removeprefix(f"offsets={run}: ")
    return found


def of_planned(folder: RunFolder, config: Config) -> Source:
    """A run whose config is known, e.g. from a sweep's plan. Raises ConfigError where there is nothing to measure."""
    if not folder.finished():
        raise RunFolderError(f"offsets={folder.id}: {why_unfinished(folder)}")
    if config.model.offsets == "zero":
        raise ConfigError(f"offsets={folder.id}: {NO_OFFSETS}")
    weights = folder.path / WEIGHTS
    if not weights.is_file():
        raise RunFolderError(f"offsets={folder.id}: that run is done, but its {WEIGHTS} is gone")
    check_root(config)
    return Source(folder.id, config, weights, folder.path / FOLDER, folder.read_json("provenance.json"))


def of_file(name: str, runs_dir: Path, given: Mapping[str, Any], site: Mapping[str, Any]) -> Source:
    """A weights file of ours or a released checkpoint; ``given`` names a recipe (``experiment=``) and its settings."""
    weights = Path(name).expanduser()
    if not weights.is_file():
        raise ConfigError(f"offsets={name}: no such file")
    settings = dict(given)
    experiment = str(settings.pop("experiment", "imagenet"))
    # where a training starts from does not matter to weights that are there
    config = resolve(experiment, {"init": None}, settings, site=site)
    if config.model.offsets == "zero":
        raise ConfigError(f"offsets={name}: {NO_OFFSETS}")
    check_root(config)
    source = Source(weights.name, config, weights.resolve(), runs_dir)
    return replace(source, out=runs_dir / FOLDER / f"{weights.stem}-{source.sha256[:8]}")


def _is_fraction(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1
