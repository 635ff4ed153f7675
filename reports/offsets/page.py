"""Pages of learned offsets: of one model, and of the arms of a sweep side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.content.page import Cell, Grid, Page, RunLine, Section, SourceFile
from reports.content.values import Count, Span, Text, Value
from reports.figures import Drawing, drawing, style
from reports.formats import files
from reports.offsets import DIRECTIONS
from reports.offsets.measured import Measured, read
from results.fingerprints import check
from results.run_folders.measurement_file import MeasuredError
from run_format import DONE, EXCLUDED

HEADER = (
    "Layer", "Direction", "Tokens", "Mean |offset| (tokens)", "(px)", "(% of extent)", "Spread (tokens)",
    "Variation (tokens)", "Outside (%)", "Reads nothing (%)", "Min … max (tokens)",
)  # fmt: skip
COMPARED = (
    "Arm", "Layer", "Direction", "n", "Mean |offset| (tokens)", "(px)", "Spread (tokens)", "Variation (tokens)",
    "Outside (%)", "Reads nothing (%)",
)  # fmt: skip
SHOWN = {  # measure → decimals; the last column of HEADER is apart
    "mean_abs": 2, "mean_abs_px": 1, "mean_abs_share": 1, "spread": 2, "variation": 2, "outside": 1, "nothing": 1,
}  # fmt: skip
MEASURED, NOT_MEASURED = "measured", "not measured"
SIDES, COMPARED_SIDES = "lll" + "r" * 8, "lll" + "r" * 7
LEGEND = (
    "Offsets are in tokens of the layer's own map; positive is right and down. Every offset counts once for each "
    "channel that reads with it. px and per cent of the map's width (horizontal) or height (vertical) compare layers.",
    "Spread: standard deviation over what one token reads (its channels and samples), averaged over tokens and images. "
    "0: all channels read at the same place.",
    "Variation: standard deviation of one channel's offset over images (and tokens, where all are counted), averaged "
    "over channels. 0: the channel always reads at the same offset, a fixed pattern.",
    "Outside: the position lies beyond the first or last token, so that zero padding is read at least in part. Reads "
    "nothing: a token or more beyond, so that only zero padding is read.",
    "Centre: the token of index size // 2; of an even map it has one token more on its left and upper side.",
)


def write(folder: Path) -> tuple[Measured, list[Path]]:
    """The page of one model, in the folder of its measurement. The same files give the same bytes."""
    from reports.offsets import depth, histograms, overlays

    measured = read(folder)
    figures = {"offset_histograms": histograms, "sampled_positions": overlays, "offsets_by_depth": depth}
    section = Section(
        name="offsets",
        title=f"Learned offsets of {measured.about['name']}",
        about=sentence(measured),
        grid=grid(HEADER, SIDES, rows(measured)),
        legend=LEGEND,
        drawings=tuple(drawn(name, module.draw, measured) for name, module in figures.items()),
        records=_records(measured.statistics),
    )
    return measured, files.write(Page(section.name, section.title, (section,)), folder)


def compare(
    plan: Mapping[str, Any], folders: Mapping[str, Path | str], out: Path, mixed: bool = False
) -> tuple[Any, list[Path]]:
    """The page of a sweep; returns the statistics over seeds and the files. See ``of_sweep``."""
    summary, section = of_sweep(plan, folders, mixed=mixed)
    return summary, files.write(Page(section.name, section.title, (section,)), out)


def of_sweep(plan: Mapping[str, Any], folders: Mapping[str, Path | str], *, mixed: bool = False) -> tuple[Any, Section]:
    """The arms of a sweep side by side. folders: each run's measurement, or in words why there is none.

    Returns the statistics over seeds, a row per arm, layer, direction and scope, and the section that shows them.
    Raises MeasuredError where no run was measured, and MixedFingerprints where runs of different code or data would be
    averaged, unless ``mixed``.
    """
    import pandas as pd

    from reports.offsets import comparison

    plan = of_own_task(plan)
    folders = {entry["run"]: folders[entry["run"]] for entry in plan["runs"]}
    measured = {run: read(folder) for run, folder in folders.items() if isinstance(folder, Path)}
    if not measured:
        raise MeasuredError(
            f"no run of {plan['sweep']}, protocol {plan['protocol']}, has offsets: {next(iter(folders.values()))}"
        )
    trained = [{"run": run, "task": "", "state": DONE, **each.about["trained"]} for run, each in measured.items()]
    cautions = check(pd.DataFrame(trained), mixed=mixed)
    summary = comparison.over_seeds(plan, measured)
    first = next(iter(measured.values()))
    images = [f"{number:,}" for number in sorted({each.about["images"] for each in measured.values()})]
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    tables = {
        run: [folder / name for name in ("statistics.csv", "histograms.csv")] if isinstance(folder, Path) else folder
        for run, folder in folders.items()
    }
    section = Section(
        name=f"offsets-{plan['sweep']}-{plan['protocol']}",
        title=f"Learned offsets of the arms of {plan['sweep']}, protocol {plan['protocol']}",
        about=(
            f"{len(measured)} of {len(folders)} runs, {' to '.join(dict.fromkeys((images[0], images[-1])))} images "
            f"each of {first.about['dataset']} ({first.about['split']}) at {_size(first)} px."
        ),
        cautions=(*cautions, *left_out(folders)),
        grid=grid(COMPARED, COMPARED_SIDES, compared(summary, labels)),
        legend=(
            "Statistics over all tokens: mean over seeds, in brackets the lowest and the highest. The centre token is "
            "in `table.csv`.",
            *LEGEND[:4],
        ),
        drawings=(drawn("offsets_by_arm", comparison.draw, plan, summary),),
        runs=tuple(run_line(labels[entry["arm"]], entry, tables[entry["run"]]) for entry in plan["runs"]),
        records=_records(summary),
    )
    return summary, section


def left_out(found: Mapping[str, Path | str]) -> Iterator[str]:
    """Sentences about runs that a person excluded."""
    for run, why in found.items():
        if isinstance(why, str) and why.startswith(f"{EXCLUDED}: "):
            yield f"Run {run} is left out: {why.removeprefix(f'{EXCLUDED}: ')}."


def of_own_task(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without the runs of downstream tasks, whose models have learned other offsets."""
    own = plan["tasks"][0]["name"] if plan.get("tasks") else None
    return {**plan, "runs": [entry for entry in plan["runs"] if own is None or entry["task"] == own]}


def sentence(measured: Measured) -> str:
    """Which model was measured, on which images."""
    about = measured.about
    return (
        f"atmnet_{about['model']}, offsets {about['offsets']}, weights `{about['weights']}` "
        f"(SHA-256 {about['weights_sha256'][:8]}): {about['images']:,} images of {about['dataset']} ({about['split']}) "
        f"at {_size(measured)} px, recipe {about['experiment']}. "
        f"Code fingerprint {about['code_fingerprint'][:8]}, data fingerprint {about['data_fingerprint'][:8]}."
    )


def rows(measured: Measured) -> list[list[Value]]:
    """The statistics as cells of HEADER."""
    records: list[dict[str, Any]] = measured.statistics.to_dict("records")  # type: ignore[assignment]
    return [
        [
            *(Text(row[column]) for column in ("layer", "direction", "scope")),
            *(Count(row[measure], decimals) for measure, decimals in SHOWN.items()),
            Span(row["min"], row["max"], 1),
        ]
        for row in records
    ]


def compared(summary: Any, labels: Mapping[str, str], ranges: bool = True) -> list[list[Value]]:
    """The statistics over all tokens as cells of COMPARED, layer by layer so that arms stand below one another.

    ranges: with the lowest and the highest seed in brackets.
    """
    from reports.offsets.comparison import layers_of

    cells: list[list[Value]] = []
    for layer in layers_of(summary):
        for direction in DIRECTIONS:
            chosen = (summary["layer"] == layer) & (summary["direction"] == direction) & (summary["scope"] == "all")
            for row in summary[chosen].to_dict("records"):
                measures = [
                    _over_seeds(row, measure, decimals, ranges)
                    for measure, decimals in SHOWN.items()
                    if measure != "mean_abs_share"
                ]
                cells.append([Text(labels[row["arm"]]), Text(layer), Text(direction), Count(row["n"], 0), *measures])
    return cells


def _over_seeds(row: Mapping[Any, Any], measure: str, decimals: int, ranges: bool) -> Value:
    mean, low, high = (row[f"{measure}_{statistic}"] for statistic in ("mean", "low", "high"))
    return Span(low, high, decimals, mean) if ranges and row["n"] > 1 else Count(mean, decimals)


def drawn(name: str, draw: Callable[..., tuple[Any, Any, str, str]], *shown: Any) -> Drawing:
    """One figure of a module here."""
    with style.theme():
        return drawing(name, *draw(*shown))


def _records(frame: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(frame.to_dict("records"))


def grid(header: Sequence[str], sides: str, rows: Iterable[Sequence[Value]]) -> Grid:
    return Grid(tuple(header), sides, tuple((tuple(map(Cell, row)),) for row in rows))


def run_line(arm: str, entry: Mapping[str, Any], found: Sequence[Path] | str) -> RunLine:
    """A run of the sweep, with the files of its measurement or the reason why there is none."""
    if isinstance(found, str):
        return RunLine(entry["run"], arm, entry["seed"], NOT_MEASURED, found)
    sources = tuple(SourceFile(file.name, file) for file in found)
    return RunLine(entry["run"], arm, entry["seed"], MEASURED, MEASURED, sources=sources)


def _size(measured: Measured) -> str:
    height, width = measured.about["image_size"]
    return f"{width} × {height}"
