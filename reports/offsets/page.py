"""Pages of learned offsets: of one model, and of the arms of a sweep side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports import render
from reports.cells import NOTHING
from reports.document import Cell, Grid, Page, Run, Section, Source
from reports.figures import Drawing, drawing, style
from reports.offsets import DIRECTIONS
from reports.offsets.measured import Measured, MeasuredError, read
from results.fingerprints import check
from run_format import DONE

HEADER = (
    "Layer", "Direction", "Tokens", "Mean |offset| (tokens)", "(px)", "(% of extent)", "Spread (tokens)",
    "Variation (tokens)", "Outside (%)", "Reads nothing (%)", "Min … max (tokens)",
)  # fmt: skip
COMPARED = (
    "Arm", "Layer", "Direction", "n", "Mean |offset| (tokens)", "(px)", "Spread (tokens)", "Variation (tokens)",
    "Outside (%)", "Reads nothing (%)",
)  # fmt: skip
SIDES, COMPARED_SIDES = "lll" + "r" * 8, "lll" + "r" * 7
LEGEND = (
    "Offsets are in tokens of the layer's own map; positive is right and down. Every offset counts once for each "
    "channel that reads with it. px and per cent of the map's width (horizontal) or height (vertical) compare layers.",
    "Spread: standard deviation over what one token reads (its channels and samples), averaged over tokens and images. "
    "0 means that all channels read at one place.",
    "Variation: standard deviation of one channel's offset over images (and tokens, where all are counted), averaged "
    "over channels. 0 means that it reads at the same offset whatever is there: a fixed pattern.",
    "Outside: the position lies beyond the first or last token, so that zero padding is read at least in part. Reads "
    "nothing: a token or more beyond, so that zero padding is all there is.",
    "Centre: the token of index size // 2; of an even map it has one token more on its left and upper side.",
)


def write(folder: Path) -> tuple[Measured, list[Path]]:
    """The page of one model, beside what was measured of it. The same files give the same bytes."""
    from reports.offsets import depth, histograms, overlays

    measured = read(folder)
    figures = {"offset_histograms": histograms, "sampled_positions": overlays, "offsets_by_depth": depth}
    section = Section(
        name="offsets",
        title=f"Learned offsets of {measured.about['name']}",
        about=sentence(measured),
        grid=_grid(HEADER, SIDES, rows(measured)),
        legend=LEGEND,
        drawings=tuple(drawn(name, module.draw, measured) for name, module in figures.items()),
        records=_records(measured.statistics),
    )
    return measured, render.write(Page(section.name, section.title, (section,)), folder)


def compare(
    plan: Mapping[str, Any], folders: Mapping[str, Path | str], out: Path, mixed: bool = False
) -> tuple[Any, list[Path]]:
    """The page of a sweep; returns the statistics over seeds and the files. See ``of_sweep``."""
    summary, section = of_sweep(plan, folders, mixed=mixed)
    return summary, render.write(Page(section.name, section.title, (section,)), out)


def of_sweep(plan: Mapping[str, Any], folders: Mapping[str, Path | str], *, mixed: bool = False) -> tuple[Any, Section]:
    """The arms of a sweep side by side. folders: what was measured of each run, or in words why nothing was.

    Returns the statistics over seeds, a row per arm, layer, direction and scope, and the section that shows them.
    Raises MeasuredError where nothing was measured, and MixedFingerprints where runs of different code or data would
    be averaged, unless ``mixed``.
    """
    import pandas as pd

    from reports.offsets import comparison

    measured = {run: read(folder) for run, folder in folders.items() if isinstance(folder, Path)}
    if not measured:
        raise MeasuredError(
            f"no run of {plan['sweep']}, protocol {plan['protocol']}, has offsets: {next(iter(folders.values()))}"
        )
    trained = [{"run": run, "state": DONE, **each.about["trained"]} for run, each in measured.items()]
    cautions = check(pd.DataFrame(trained), mixed=mixed)
    summary = comparison.over_seeds(plan, measured)
    first = next(iter(measured.values()))
    images = [f"{number:,}" for number in sorted({each.about["images"] for each in measured.values()})]
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    section = Section(
        name=f"offsets-{plan['sweep']}-{plan['protocol']}",
        title=f"Learned offsets of the arms of {plan['sweep']}, protocol {plan['protocol']}",
        about=(
            f"{len(measured)} of {len(folders)} runs, {' to '.join(dict.fromkeys((images[0], images[-1])))} images "
            f"each of {first.about['dataset']} ({first.about['split']}) at {_size(first)} px."
        ),
        cautions=tuple(cautions),
        grid=_grid(COMPARED, COMPARED_SIDES, compared(summary, labels)),
        legend=(
            "Statistics over all tokens: mean over seeds, in brackets the lowest and the highest. The centre token is "
            "in `table.csv`.",
            *LEGEND[:4],
        ),
        drawings=(drawn("offsets_by_arm", comparison.draw, plan, summary),),
        runs=tuple(_run(labels[entry["arm"]], entry, folders[entry["run"]]) for entry in plan["runs"]),
        records=_records(summary),
    )
    return summary, section


def sentence(measured: Measured) -> str:
    """What was measured."""
    about = measured.about
    return (
        f"atmnet_{about['model']}, offsets {about['offsets']}, weights `{about['weights']}` "
        f"(SHA-256 {about['weights_sha256'][:8]}): {about['images']:,} images of {about['dataset']} ({about['split']}) "
        f"at {_size(measured)} px, recipe {about['experiment']}. "
        f"Code fingerprint {about['code_fingerprint'][:8]}, data fingerprint {about['data_fingerprint'][:8]}."
    )


def rows(measured: Measured) -> list[list[object]]:
    """The statistics as cells of HEADER."""
    records: list[dict[str, Any]] = measured.statistics.to_dict("records")  # type: ignore[assignment]
    return [
        [
            row["layer"], row["direction"], row["scope"], f"{row['mean_abs']:.2f}", f"{row['mean_abs_px']:.1f}",
            f"{row['mean_abs_share']:.1f}", f"{row['spread']:.2f}", f"{row['variation']:.2f}", f"{row['outside']:.1f}",
            f"{row['nothing']:.1f}", f"{row['min']:.1f} … {row['max']:.1f}".replace("-", "−"),
        ]
        for row in records
    ]  # fmt: skip


def compared(summary: Any, labels: Mapping[str, str], ranges: bool = True) -> list[list[object]]:
    """The statistics over all tokens as cells of COMPARED, layer by layer so that arms stand below one another.

    ranges: with the lowest and the highest seed in brackets.
    """
    from reports.offsets.comparison import layers_of

    made: list[list[object]] = []
    for layer in layers_of(summary):
        for direction in DIRECTIONS:
            chosen = (summary["layer"] == layer) & (summary["direction"] == direction) & (summary["scope"] == "all")
            for row in summary[chosen].to_dict("records"):
                numbers = [
                    _ranged(row, measure, decimals, ranges)
                    for measure, decimals in (
                        ("mean_abs", 2), ("mean_abs_px", 1), ("spread", 2), ("variation", 2), ("outside", 1),
                        ("nothing", 1),
                    )
                ]  # fmt: skip
                made.append([labels[row["arm"]], layer, direction, row["n"], *numbers])
    return made


def _ranged(row: Mapping[Any, Any], measure: str, decimals: int, ranges: bool) -> str:
    mean, low, high = (f"{row[f'{measure}_{what}']:.{decimals}f}" for what in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]" if ranges and row["n"] > 1 else mean


def drawn(name: str, draw: Callable[..., tuple[Any, Any, str, str]], *shown: Any) -> Drawing:
    """One figure of a module here."""
    with style.theme():
        return drawing(name, *draw(*shown))


def _records(frame: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(frame.to_dict("records"))


def _grid(header: Sequence[str], sides: str, rows: Iterable[Sequence[object]]) -> Grid:
    """Numbers sort as numbers, by what stands before any bracket."""
    return Grid(tuple(header), sides, tuple(((*map(_cell, row),),) for row in rows))


def _cell(content: object) -> Cell:
    text = str(content)
    try:
        return Cell(text, float(text.partition(" ")[0].replace("−", "-")))
    except ValueError:
        return Cell(text)


def _run(arm: str, entry: Mapping[str, Any], folder: Path | str) -> Run:
    """A run of the sweep, with what was measured of it."""
    there = isinstance(folder, Path)
    sources = [Source(name, Path(folder) / name) for name in ("statistics.csv", "histograms.csv")] if there else []
    said = "measured" if there else str(folder)
    return Run(entry["run"], arm, entry["seed"], said, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, tuple(sources))


def _size(measured: Measured) -> str:
    height, width = measured.about["image_size"]
    return f"{width} × {height}"
