"""Pages of learned offsets as files: ``report.md`` and every figure as PNG, PDF and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import atomic_file
from reports.figures import Drawing, style
from reports.markup import markdown_row, markdown_rule
from reports.offsets import DIRECTIONS
from reports.offsets.measured import Measured, MeasuredError, read
from results.fingerprints import check
from results.run_folder import DONE

HEADER = (
    "Layer", "Direction", "Tokens", "Mean |offset| (tokens)", "(px)", "(% of extent)", "Spread (tokens)",
    "Variation (tokens)", "Outside (%)", "Reads nothing (%)", "Min … max (tokens)",
)  # fmt: skip
COMPARED = (
    "Arm", "Layer", "Direction", "n", "Mean |offset| (tokens)", "(px)", "Spread (tokens)", "Variation (tokens)",
    "Outside (%)", "Reads nothing (%)",
)  # fmt: skip
SIDES = "lll" + "r" * 8
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
    drawings = [
        _drawing("offset_histograms", lambda: histograms.draw(measured)),
        _drawing("sampled_positions", lambda: overlays.draw(measured)),
        _drawing("offsets_by_depth", lambda: depth.draw(measured)),
    ]
    parts = [
        f"# Learned offsets of {measured.about['name']}",
        sentence(measured),
        *_figures(drawings),
        "## Statistics",
        _table(HEADER, SIDES, rows(measured)),
        *_legend(LEGEND),
    ]
    return measured, _write(folder, parts, drawings)


def compare(
    plan: Mapping[str, Any], folders: Mapping[str, Path | str], out: Path, mixed: bool = False
) -> tuple[Any, list[Path]]:
    """The page of a sweep. folders: what was measured of each run, or in words why nothing was.

    Returns the statistics over seeds, a row per arm, layer, direction and scope, and the files.
    Raises MixedFingerprints where runs of different code or data would be averaged, unless ``mixed``.
    """
    import pandas as pd

    from reports.offsets import comparison

    measured = {run: read(folder) for run, folder in folders.items() if isinstance(folder, Path)}
    if not measured:
        raise MeasuredError(
            f"no run of {plan['sweep']}, protocol {plan['protocol']}, has offsets: {next(iter(folders.values()))}"
        )
    trained = [{"run": run, "state": DONE, **each.about["trained"]} for run, each in measured.items()]
    warnings = check(pd.DataFrame(trained), mixed=mixed)
    summary = comparison.over_seeds(plan, measured)
    drawing = _drawing("offsets_by_arm", lambda: comparison.draw(plan, summary))
    first = next(iter(measured.values()))
    images = [f"{number:,}" for number in sorted({each.about["images"] for each in measured.values()})]
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    runs = [
        [labels[run["arm"]], run["seed"], run["run"], "measured" if run["run"] in measured else folders[run["run"]]]
        for run in plan["runs"]
    ]
    parts = [
        f"# Learned offsets of the arms of {plan['sweep']}, protocol {plan['protocol']}",
        f"{len(measured)} of {len(folders)} runs, {' to '.join(dict.fromkeys((images[0], images[-1])))} images each of "
        f"{first.about['dataset']} ({first.about['split']}) at {_size(first)} px.",
        *(f"**{warning}**" for warning in warnings),
        *_figures([drawing]),
        "## Statistics over all tokens",
        "Mean over seeds, in brackets the lowest and the highest. The centre token is in `offsets_by_arm.csv`.",
        _table(COMPARED, "lll" + "r" * 7, compared(summary, labels)),
        *_legend(LEGEND[:4]),
        "## Runs",
        _table(("Arm", "Seed", "Run", "State"), "lrll", runs),
    ]
    return summary, _write(out, parts, [drawing])


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


def _drawing(name: str, draw: Callable[[], tuple[Any, Any, str, str]]) -> Drawing:
    with style.theme():
        canvas, data, title, caption = draw()
        return Drawing(name, title, caption, style.files(canvas, data, name))


def _figures(drawings: Iterable[Drawing]) -> list[str]:
    return [f"## {each.title}\n\n![{each.title}]({each.file})\n\n{each.caption}" for each in drawings]


def _table(header: Iterable[object], sides: str, body: Iterable[list[object]]) -> str:
    return "\n".join([markdown_row(list(header)), markdown_rule(sides), *map(markdown_row, body)])


def _legend(lines: Iterable[str]) -> list[str]:
    return ["## How to read it", "\n".join(f"- {line}" for line in lines)]


def _write(out: Path, parts: list[str], drawings: list[Drawing]) -> list[Path]:
    files = [atomic_file.write(out / "report.md", "\n\n".join(parts) + "\n")]
    return files + [
        atomic_file.write(out / name, content) for drawing in drawings for name, content in drawing.files.items()
    ]


def _size(measured: Measured) -> str:
    height, width = measured.about["image_size"]
    return f"{width} × {height}"
