"""The models whose offsets can be measured, finished runs and weights files, and what is to be measured. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from errors import ConfigError, RunFolderError, unknown
from experiments.config import resolve, scientific
from experiments.data.registry import check_judged
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from measurements.finished_run import config_of_run, why_left_out, why_unmeasured
from results.file_hash import sha256
from results.run_folders.interventions import FOLDER
from run_format import PROVENANCE, WEIGHTS

IMAGES = 1000  # v1 Fig. 3
QUERIES = ((0.5, 0.5), (0.25, 0.3), (0.75, 0.7))
NO_OFFSETS = "this model predicts no offsets"


@dataclass(frozen=True)
class OffsetRequest:
    """What to measure.

    images: how many. layer: the layer whose reads are drawn over images; None for the last predicting one of stage 3.
    queries: the tokens whose reads are drawn, as fractions of height and width.
    """

    images: int = IMAGES
    layer: str | None = None
    queries: tuple[tuple[float, float], ...] = QUERIES

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> OffsetRequest:
        """Removes the keys of a request from the settings of a command line. Raises ConfigError."""
        given, layer, query = settings.pop("images", IMAGES), settings.pop("layer", None), settings.pop("query", None)
        images = int(given) if re.fullmatch(r"\d{1,9}", str(given)) else 0
        if images < 1:
            raise ConfigError(f"images={given}: give a whole number of at least 1")
        if layer is not None and not re.fullmatch(r"(layer_)?\d+(_\d+)?", str(layer)):
            raise ConfigError(f"layer={layer}: give stage and layer, e.g. layer=layer_3_1")
        if query is None:
            return cls(images, None if layer is None else str(layer))
        pairs = query if isinstance(query, list) and query and isinstance(query[0], list) else [query]
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not all(_is_fraction(number) for number in pair):
                raise ConfigError(f"query={query}: give row and column as fractions of the image, e.g. query=[0.5,0.5]")
        return cls(images, None if layer is None else str(layer), tuple((float(y), float(x)) for y, x in pairs))

    def layer_of(self, layers: list[str]) -> str:
        """The layer whose reads are drawn, among those that predict offsets. Raises ConfigError if it is not one."""
        if self.layer is None:
            return ([name for name in layers if name.startswith("layer_3_")] or layers)[-1]
        for name in layers:
            # YAML reads 3_1 as the number 31. A stage number has one digit, so the digits alone identify a layer.
            if re.sub(r"\D", "", name) == re.sub(r"\D", "", self.layer):
                return name
        raise ConfigError(f"{unknown('layer', self.layer, layers)}; other layers reuse the offsets of the one before")


@dataclass(frozen=True)
class OffsetSource:
    """A trained model whose offsets can be measured.

    name: run id, or name of the weights file. out: folder for the results. provenance: as the run recorded it.
    metrics: what the run found with these weights, as its task names them.
    """

    name: str
    config: Config
    weights: Path
    out: Path
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        return sha256(self.weights)

    def key(self, **request: Any) -> dict[str, Any]:
        """Everything that the results depend on, with what was asked. Only if some of it changed, they are measured
        again."""
        data = {key: value for key, value in scientific(self.config).items() if key.startswith(("data.", "model."))}
        return {
            "weights_sha256": self.sha256,
            **request,
            "root": self.config.data.root,
            "experiment": self.config.experiment,
            **data,
        }


def of_run(folder: RunFolder, settings: Mapping[str, Any], site: Mapping[str, Any]) -> OffsetSource:
    """A finished run. ``settings`` and ``site`` say how this machine executes and where its data are.

    Raises ConfigError or RunFolderError in one line.
    """
    return of_planned(folder, config_of_run(folder, settings, site, "offsets"))


def of_sweep(runs: Mapping[str, Config], runs_dir: Path) -> dict[str, OffsetSource | str]:
    """The runs of a sweep by id; for a run that has nothing to measure, the reason as text."""
    folders = {run: RunFolder(runs_dir / run) for run in runs}
    return {
        run: why_left_out(folders[run]) or _why_nothing(folders[run], config) or of_planned(folders[run], config)
        for run, config in runs.items()
    }


def of_planned(folder: RunFolder, config: Config) -> OffsetSource:
    """A run whose config is known, e.g. from a sweep's plan.

    Raises RunFolderError if there is nothing to measure, and DataError if its images are missing.
    """
    if reason := _why_nothing(folder, config):
        raise RunFolderError(f"offsets={folder.id}: {reason}")
    check_judged(config)
    prefix = "eval/" if config.train.ema_decay is None else "eval_ema/"  # of the weights that a run leaves behind
    metrics = (folder.finished() or {}).get("metrics", {})
    return OffsetSource(
        folder.id,
        config,
        folder.path / WEIGHTS,
        folder.path / FOLDER,
        folder.read_json(PROVENANCE),
        {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)},
    )


def of_file(name: str, runs_dir: Path, settings: Mapping[str, Any], site: Mapping[str, Any]) -> OffsetSource:
    """A weights file of ours or a released checkpoint. ``settings``: a recipe (``experiment=``) and changes to it."""
    weights = Path(name).expanduser()
    if not weights.is_file():
        raise ConfigError(f"offsets={name}: no such file")
    overrides = dict(settings)
    experiment = str(overrides.pop("experiment", "imagenet"))
    # the weights exist, so it does not matter what their training started from
    config = resolve(experiment, {"init": None}, overrides, site=site)
    if reason := _why_no_offsets(config):
        raise ConfigError(f"offsets={name}: {reason}")
    check_judged(config)
    source = OffsetSource(weights.name, config, weights.resolve(), runs_dir)
    return replace(source, out=runs_dir / FOLDER / f"{weights.stem}-{source.sha256[:8]}")


def _why_nothing(folder: RunFolder, config: Config) -> str | None:
    """Why a run has nothing to measure; None if it has."""
    return why_unmeasured(folder) or _why_no_offsets(config)


def _why_no_offsets(config: Config) -> str | None:
    model = config.model
    if model.offsets is None:  # a network of timm, or a mixer other than ATM
        return f"{NO_OFFSETS} ({f'model.mixer={model.mixer}' if model.mixer else f'model={model.name}'})"
    return f"{NO_OFFSETS} (model.offsets=zero)" if model.offsets == "zero" else None


def _is_fraction(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1
