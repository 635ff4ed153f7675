"""The networks whose receptive field can be measured: runs, weights files, and any network of timm. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import ConfigError, RunFolderError
from experiments.backbones import TIMM, check_name
from experiments.config import resolve, scientific
from experiments.data.registry import check_judged
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from measurements.finished_run import config_of_run, why_left_out, why_unmeasured
from results.file_hash import sha256
from run_format import PROVENANCE, WEIGHTS

IMAGES = 64
FOLDER = "receptive_field"  # in a run's folder, and in runs_dir for files and networks of timm


@dataclass(frozen=True)
class FieldRequest:
    """images: how many the gradient is averaged over; stage: the map, counted from 1; None for the last."""

    images: int = IMAGES
    stage: int | None = None

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> FieldRequest:
        """Removes the keys of a request from the settings of a command line. Raises ConfigError."""
        values = {"images": settings.pop("images", IMAGES), "stage": settings.pop("stage", None)}
        for key, value in values.items():
            if value is not None and not re.fullmatch(r"[1-9]\d{0,8}", str(value)):
                raise ConfigError(f"{key}={value}: give a whole number of at least 1")
        return cls(int(values["images"]), None if values["stage"] is None else int(values["stage"]))


@dataclass(frozen=True)
class FieldSource:
    """A network. name: run id, file or name in timm; weights: after training, None for a fresh network alone; out:
    folder for the results; provenance: as the run recorded it; curve: its accuracy by distance, if its task has one."""

    name: str
    config: Config
    weights: Path | None
    out: Path
    provenance: Mapping[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def key(self, request: FieldRequest) -> dict[str, Any]:
        """Everything that the results depend on."""
        settings = {
            k: v for k, v in scientific(self.config).items() if k.startswith(("data.", "model.")) or k == "seed"
        }
        asked = {"images": request.images, "stage": request.stage, "root": self.config.data.root}
        return {**asked, "weights_sha256": sha256(self.weights) if self.weights else "", **settings}


def of_run(folder: RunFolder, settings: Mapping[str, Any], site: Mapping[str, Any]) -> FieldSource:
    """A finished run as it is. Raises ConfigError or RunFolderError in one line."""
    config = config_of_run(folder, settings, site, "reach")
    if reason := _why_nothing(folder):
        raise RunFolderError(f"reach={folder.id}: {reason}")
    return _finished(folder, config)


def of_sweep(runs: Mapping[str, Config], runs_dir: Path) -> dict[str, FieldSource | str]:
    """The runs of a sweep by id; for a run that has not ended, the reason as text."""
    folders = {run: RunFolder(runs_dir / run) for run in runs}
    return {run: _why_nothing(folders[run]) or _finished(folders[run], config) for run, config in runs.items()}


def of_file(name: str, runs_dir: Path, settings: Mapping[str, Any], site: Mapping[str, Any]) -> FieldSource:
    """A weights file, with a recipe (``experiment=``) and changes to it, as a run of them would have them."""
    weights = Path(name).expanduser().resolve()
    config = _resolved(settings, {}, site)
    return FieldSource(weights.name, config, weights, runs_dir / FOLDER / f"{weights.stem}-{sha256(weights)[:8]}")


def of_timm(name: str, runs_dir: Path, settings: Mapping[str, Any], site: Mapping[str, Any]) -> FieldSource:
    """A network of timm, ``timm/NAME``, with fresh weights, on images of a recipe (``experiment=``, else scenes)."""
    check_name(name)
    config = _resolved(settings, {"model": name}, site)
    return FieldSource(name, config, None, runs_dir / FOLDER / name.removeprefix(TIMM))


def _resolved(settings: Mapping[str, Any], own: Mapping[str, Any], site: Mapping[str, Any]) -> Config:
    overrides = dict(settings)
    config = resolve(str(overrides.pop("experiment", "scenes")), {"init": None}, {**own, **overrides}, site=site)
    check_judged(config)
    return config


def _finished(folder: RunFolder, config: Config) -> FieldSource:
    check_judged(config)
    curve = [dict(row) for row in (folder.finished() or {}).get("curves", {}).get("reach", [])]
    return FieldSource(
        folder.id, config, folder.path / WEIGHTS, folder.path / FOLDER, folder.read_json(PROVENANCE), curve
    )


def _why_nothing(folder: RunFolder) -> str | None:
    return why_left_out(folder) or why_unmeasured(folder)
