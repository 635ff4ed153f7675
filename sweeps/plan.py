"""From a sweep file to its runs: arms x seeds, each with its whole config and id. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown
from experiments.config import ROOT, Config, read_yaml, resolve
from experiments.data.layout import check_root
from experiments.identity import run_id

SWEEPS = ROOT / "sweeps"


@dataclass(frozen=True)
class PlannedRun:
    id: str
    arm: str
    seed: int
    config: Config


@dataclass(frozen=True)
class Plan:
    sweep: str
    protocol: str
    experiment: str
    baseline: str
    labels: dict[str, str]  # arm -> what tables call it
    left_out: list[str]  # arms of the sweep that were not chosen
    runs: list[PlannedRun]  # seed by seed, so that a part of a sweep already compares all arms

    def distinct(self) -> dict[str, PlannedRun]:
        """Runs by id: arms with one config share a run."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.id, run)
        return first

    def as_dict(self) -> dict[str, Any]:
        """The plan in plain values, as the rooms that only read results take it."""
        first = {run.arm: run.config for run in reversed(self.runs)}
        return {
            "sweep": self.sweep,
            "protocol": self.protocol,
            "experiment": self.experiment,
            "baseline": self.baseline,
            "left_out": self.left_out,
            "arms": [
                {"name": arm, "label": label, "model": first[arm].model.name, "config": first[arm].as_dict()["model"]}
                for arm, label in self.labels.items()
            ],
            "runs": [{"run": run.id, "arm": run.arm, "seed": run.seed} for run in self.runs],
        }


def load(
    name: str,
    protocol: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: list[int] | None = None,
    arms: list[str] | None = None,
    site: Mapping[str, Any] | None = None,
) -> Plan:
    """Plans a sweep. ``overrides`` are dotted keys for every run; ``arms`` chooses some of the sweep's,
    the baseline among them.

    Raises ConfigError for an unknown sweep, protocol, arm, key or value, DataError where classes must be counted
    and the data root is missing.
    """
    sweep = read_sweep(name)
    if protocol not in sweep["recipes"]:
        raise ConfigError(unknown(f"protocol of sweep {name}", protocol, sweep["recipes"]))
    experiment = sweep["recipes"][protocol]
    for arm in arms or []:
        if arm not in sweep["arms"]:
            raise ConfigError(unknown(f"arm of sweep {name}", arm, sweep["arms"]))
    if arms and sweep["baseline"] not in arms:
        raise ConfigError(f"arms={arms}: differences are taken to {sweep['baseline']!r}, so it must be among them")
    chosen = {arm: dict(body) for arm, body in sweep["arms"].items() if not arms or arm in arms}
    labels = {arm: body.pop("label", arm) for arm, body in chosen.items()}
    common = sweep.get("settings", {}).get(protocol, {})
    runs = []
    for seed in sweep["seeds"] if seeds is None else seeds:
        for arm, body in chosen.items():
            config = resolve(experiment, common, body, overrides or {}, {"seed": seed}, site=site)
            if config.data.num_classes is None:
                check_root(config)
            runs.append(PlannedRun(run_id(config), arm, seed, config))
    left_out = [arm for arm in sweep["arms"] if arm not in chosen]
    return Plan(name, protocol, experiment, sweep["baseline"], labels, left_out, runs)


def read_sweep(name: str) -> dict[str, Any]:
    """A sweep file, with the parts every one must have. Raises ConfigError."""
    path = SWEEPS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("sweep", name, sweep_names()))
    sweep = read_yaml(path)
    for part in ("recipes", "seeds", "baseline", "arms"):
        if part not in sweep:
            raise ConfigError(f"{path.name}: has no {part}")
    if sweep["baseline"] not in sweep["arms"]:
        raise ConfigError(f"{path.name}: baseline: {unknown('arm', sweep['baseline'], sweep['arms'])}")
    return sweep


def sweep_names() -> list[str]:
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def headline(path: Path) -> str:
    """The first comment line of a recipe, sweep or report file: what it is for, in a sentence."""
    with path.open() as file:
        return file.readline().lstrip("# ").strip()
