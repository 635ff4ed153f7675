"""The page of receptive fields, of one network or of the arms of a sweep side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.content.page import Cell, Grid, Page, RunLine, Section
from reports.content.values import Count, Span, Text, Value
from reports.formats import files
from reports.offsets.page import drawn, left_out, of_own_task, run_line
from reports.receptive_field import figures
from reports.receptive_field.measured import ABOUT, DIRECTIONS, MAPS, SHARES, MeasuredField, read
from results.fingerprints import check
from results.run_folders.measurement_file import MeasuredError
from run_format import DONE

LEGEND = (
    "Half the squared norm of the centre token (index size // 2) of the map is differentiated by the image; absolute "
    "values are summed over colours, divided by their sum, and averaged over images. After Luo et al. (NeurIPS 2016, "
    "arXiv 1701.04128), who take the sum of the channels, which the next LayerNorm would take out. The map is that of "
    "the stage before any norm.",
    "A radius: the distance in px from the centre token within which 50 or 90 % of the gradient lie; horizontal and "
    "vertical count one coordinate alone, any: the straight line. In brackets the lowest and the highest seed.",
    "Fresh: the network as the run's seed begins it. What a gradient reaches is what a token *could* depend on near "
    "these images, not what it needs: compare it with accuracy by distance.",
)


@dataclass(frozen=True)
class FieldsOfArm:
    """The measured runs of an arm, at least one."""

    label: str
    fields: Sequence[MeasuredField]

    @property
    def states(self) -> list[str]:
        return list(self.fields[0].maps)


def write(name: str, folder: Path) -> tuple[Section, list[Path]]:
    """The page of one network, in the folder of its measurement."""
    field = read(folder)
    section = _section("receptive_field", f"Receptive field of {name}", [FieldsOfArm(name, [field])])
    return section, files.write(Page(section.name, section.title, (section,)), folder)


def compare(
    plan: Mapping[str, Any], folders: Mapping[str, Path | str], out: Path, mixed: bool = False
) -> tuple[Section, list[Path]]:
    """The page of a sweep. folders: each run's measurement, or in words why there is none.

    Raises MeasuredError where no run was measured, and MixedFingerprints where runs of different code or data would be
    averaged, unless ``mixed``.
    """
    import pandas as pd

    plan = of_own_task(plan)
    measured = {run: read(folder) for run, folder in folders.items() if isinstance(folder, Path)}
    if not measured:
        first = next(iter(folders.values()))
        raise MeasuredError(f"no run of {plan['sweep']}, protocol {plan['protocol']}, can be measured: {first}")
    trained = [{"run": run, "task": "", "state": DONE, **each.about["trained"]} for run, each in measured.items()]
    cautions = check(pd.DataFrame(trained), mixed=mixed)
    arms = []
    for arm in plan["arms"]:
        runs = [entry["run"] for entry in plan["runs"] if entry["arm"] == arm["name"]]
        if fields := [measured[run] for run in runs if run in measured]:
            arms.append(FieldsOfArm(arm["label"], fields))
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    lines = []
    for entry in plan["runs"]:
        folder = folders[entry["run"]]
        found = [folder / MAPS, folder / ABOUT] if isinstance(folder, Path) else folder
        lines.append(run_line(labels[entry["arm"]], entry, found))
    name = f"receptive_field-{plan['sweep']}-{plan['protocol']}"
    title = f"Receptive fields of the arms of {plan['sweep']}, protocol {plan['protocol']}"
    section = _section(name, title, arms, (*cautions, *left_out(folders)), lines)
    return section, files.write(Page(section.name, section.title, (section,)), out)


def to_json(section: Section, files: Sequence[Path]) -> str:
    """The rows of the table, the runs and the files."""
    runs = [{"run": run.id, "arm": run.arm, "seed": run.seed, "state": run.status} for run in section.runs]
    return json.dumps({"rows": list(section.records), "runs": runs, "written": [str(file) for file in files]})


def _section(
    name: str, title: str, arms: Sequence[FieldsOfArm], cautions: Sequence[str] = (), runs: Sequence[RunLine] = ()
) -> Section:
    about = arms[0].fields[0].about
    height, width = about["image_size"]
    stage = "the last stage" if about["stage"] is None else f"stage {about['stage']}"
    drawings = [drawn("fields", figures.fields, arms)]
    drawings.append(drawn("distance", figures.by_distance, arms))
    records = _records(arms)
    return Section(
        name=name,
        title=title,
        about=(
            f"{about['images']:,} images of {about['dataset']} ({about['split']}) at {width} × {height} px; the centre "
            f"of {stage}, {about['map'][1]} × {about['map'][0]} tokens. Code fingerprint "
            f"{about['code_fingerprint'][:8]}, data fingerprint {about['data_fingerprint'][:8]}."
        ),
        cautions=tuple(cautions),
        grid=_grid(records),
        legend=LEGEND,
        drawings=tuple(drawings),
        runs=tuple(runs),
        records=tuple(records),
    )


def _records(arms: Sequence[FieldsOfArm]) -> list[dict[str, Any]]:
    """A row per arm, state and direction: mean, lowest and highest seed of both radii."""
    rows: list[dict[str, Any]] = []
    for arm in arms:
        for of_seeds in zip(*(field.rows() for field in arm.fields)):
            row = {"arm": arm.label, **{key: of_seeds[0][key] for key in ("state", "direction")}, "n": len(of_seeds)}
            for share in SHARES:
                radii = [each[f"radius_{share}"] for each in of_seeds]
                row |= {f"radius_{share}": round(sum(radii) / len(radii), 3)}
                row |= {f"radius_{share}_low": round(min(radii), 3), f"radius_{share}_high": round(max(radii), 3)}
            rows.append(row)
    return rows


def _grid(records: Sequence[Mapping[str, Any]]) -> Grid:
    """A row per arm and state, a column per share and direction."""
    header = ("Arm", "Weights", "n", *(f"{share} %, {way} (px)" for share in SHARES for way in DIRECTIONS))
    by_row: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_row.setdefault((record["arm"], record["state"]), {})[record["direction"]] = record
    rows = []
    for (arm, state), by_direction in by_row.items():
        n = by_direction[DIRECTIONS[0]]["n"]
        cells = [_radius(by_direction[way], share) for share in SHARES for way in DIRECTIONS]
        rows.append((tuple(map(Cell, (Text(arm), Text(state), Count(n, 0), *cells))),))
    return Grid(header, "ll" + "r" * (1 + len(SHARES) * len(DIRECTIONS)), tuple(rows))


def _radius(record: Mapping[str, Any], share: int) -> Value:
    mean, low, high = (record[f"radius_{share}{end}"] for end in ("", "_low", "_high"))
    return Span(low, high, 1, mean) if record["n"] > 1 else Count(mean, 1)
