"""What a trained model loses where it reads with other offsets than it predicts: of one run, and by arm of a sweep."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import SuiteError
from reports.content.page import Grid, Page, Section
from reports.content.values import NOTHING, Count, PairedDifference, SeedMean, Span, Text, Value
from reports.formats import files
from reports.offsets.page import NOT_MEASURED, grid, left_out, of_own_task, run_line
from results.collect import Collected, Plan
from results.fingerprints import check
from results.run_folders.interventions import read, reasons
from results.run_folders.measurement_file import MeasuredError
from results.statistics.estimates import mean_interval, paired_difference
from run_format import DONE, EXCLUDED

ZERO = "zero"  # the offset mode that reads every token where it is
QUESTIONS = (
    "What each asks: *shuffled across tokens*, whether it matters which token of an image an offset was predicted "
    "for; *shuffled across images*, whether it matters which image, at the same token; *mean per channel*, whether "
    "more than a fixed pattern of reading matters; *zero*, whether reading elsewhere matters; *rounded to tokens*, "
    "whether fractions of a token matter."
)
LIMIT = (
    "No network saw such offsets in training. So a fall shows that it uses what it predicts, not how much of its "
    "accuracy it owes to that; arms that were trained with fixed offsets or none answer that. Where nothing falls, it "
    "does without what was taken away."
)


def of_run(about: Mapping[str, Any]) -> Section:
    """The table of one run: a row per intervention, and intervals over images."""
    metric = about["metric"]
    name, decimals = metric["name"], metric["decimals"]
    rows: list[list[Value]] = [[Text("Own offsets"), Count(about["undisturbed"][name], decimals), NOTHING]]
    for effect in about["interventions"].values():
        difference: Value = Count(effect["differences"][name], decimals, signed=True)
        if name in effect["intervals"]:
            low, high = effect["intervals"][name]
            difference = Span(low, high, decimals, effect["differences"][name])
        rows.append([Text(effect["title"]), Count(effect["metrics"][name], decimals), difference])
    return Section(
        name="interventions",
        title=f"Offset interventions on {about['name']}",
        about=_sentence([about]),
        cautions=tuple(_cautions(about)),
        grid=_grid(("Offsets", _label(metric), "Difference [95 % over images]"), rows),
        legend=(
            "The interval is over images, paired, for this one model; there is none where no image differs.",
            QUESTIONS,
            LIMIT,
        ),
        records=tuple(_of_effects(about)),
    )


def compare(
    plan: Mapping[str, Any], found: Mapping[str, Path | str], out: Path, mixed: bool = False
) -> tuple[Section, list[Path]]:
    """The page of a sweep, and its files. See ``of_sweep``."""
    section = of_sweep(plan, found, mixed=mixed)
    return section, files.write(Page(section.name, section.title, (section,)), out)


def of_results(name: str, collected: Collected, planned: Plan, *, mixed: bool = False) -> Section | None:
    """The same table of collected results; None where no run of the sweep's own task has interventions.

    name: of these results. Where the runs cannot be compared, the section says why.
    """
    plan = of_own_task(planned)
    found = _found(collected, plan)
    if not any(isinstance(file, Path) for file in found.values()):
        return None
    try:
        section = of_sweep(plan, found, mixed=mixed)
    except SuiteError as error:
        section = Section("", "", cautions=(f"{error}.",))
    return replace(section, name=f"{name}-interventions", title=f"Offset interventions: {name}")


def of_sweep(plan: Mapping[str, Any], found: Mapping[str, Path | str], *, mixed: bool = False) -> Section:
    """A row per arm: the metric with the model's own offsets, and by how much each intervention changes it.

    plan: of runs of one task. found: each run's file of interventions, or in words why there is none. Raises
    MeasuredError where no run has any or metrics differ, and MixedFingerprints as ``reports.offsets.page`` does.
    """
    import pandas as pd

    runs = {entry["run"]: found[entry["run"]] for entry in plan["runs"]}
    abouts = {run: read(file) for run, file in runs.items() if isinstance(file, Path)}
    where = f"{plan['sweep']}, protocol {plan['protocol']}"
    if not abouts:
        raise MeasuredError(f"no run of {where}, has offsets: {next(iter(runs.values()))}")
    metrics = [about["metric"] for about in abouts.values()]
    if any(metric != metrics[0] for metric in metrics):
        raise MeasuredError(f"the runs of {where}, have several metrics: {', '.join({m['name'] for m in metrics})}")
    trained = [{"run": run, "task": "", "state": DONE, **each["trained"]} for run, each in abouts.items()]
    cautions = [*check(pd.DataFrame(trained), mixed=mixed), *left_out(runs)]
    cautions += [*_of_one_kind(abouts.values()), *(line for about in abouts.values() for line in _cautions(about))]
    titles = {name: effect["title"] for about in abouts.values() for name, effect in about["interventions"].items()}
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    rows: list[list[Value]] = []
    records: list[dict[str, Any]] = []
    for arm in dict.fromkeys(entry["arm"] for entry in plan["runs"]):
        entries = [entry for entry in plan["runs"] if entry["arm"] == arm]
        of_arm = {entry["seed"]: abouts[entry["run"]] for entry in entries if entry["run"] in abouts}
        if of_arm:
            rows.append([Text(labels[arm]), *_by_arm(of_arm, len(entries), metrics[0], titles)])
            records += _records(arm, of_arm, titles)
    files_of = {run: [file] if isinstance(file, Path) else file for run, file in runs.items()}
    return Section(
        name=f"interventions-{plan['sweep']}-{plan['protocol']}",
        title=f"Offset interventions on the arms of {where}",
        about=f"{len(abouts)} of {len(runs)} runs{_without_offsets(plan)}. {_sentence(list(abouts.values()))}",
        cautions=tuple(cautions),
        grid=_grid(("Arm", f"{_label(metrics[0])}, own offsets", *titles.values()), rows),
        legend=(
            "Each intervention: difference to the same run with its own offsets, mean over seeds with its 95 % "
            "t-interval over seeds. Every metric is in `table.csv`, intervals over images are in each run's file.",
            QUESTIONS,
            LIMIT,
        ),
        runs=tuple(run_line(labels[entry["arm"]], entry, files_of[entry["run"]]) for entry in plan["runs"]),
        records=tuple(records),
    )


def _without_offsets(plan: Mapping[str, Any]) -> str:
    """Which arms have no offsets that could be replaced."""
    arms = [arm["label"] for arm in plan["arms"] if (arm.get("config") or {}).get("offsets") == ZERO]
    return f"; no offsets to replace in: {'; '.join(arms)}" if arms else ""


def _found(collected: Collected, plan: Plan) -> dict[str, Path | str]:
    """Each run's file of interventions, or in words why there is none."""
    missing = {run: f"{EXCLUDED}: {because}" for run, because in collected.excluded.items()}
    missing = reasons(collected.warnings) | missing
    states = dict(zip(collected.runs["run"], collected.runs["state"]))
    return {
        run: collected.interventions.get(run)
        or missing.get(run)
        or (NOT_MEASURED if states[run] == DONE else states[run])
        for run in (entry["run"] for entry in plan["runs"])
    }


def _by_arm(
    of_arm: Mapping[int, Mapping[str, Any]], planned: int, metric: Mapping[str, Any], titles: Mapping[str, str]
) -> Iterator[Value]:
    """The cells of one arm. of_arm: seed → its file."""
    name, decimals = metric["name"], metric["decimals"]
    own = {seed: about["undisturbed"][name] for seed, about in of_arm.items()}
    yield SeedMean(mean_interval(own), planned, decimals)
    for intervention in titles:
        difference = paired_difference(_disturbed(of_arm, intervention, name), own)
        yield NOTHING if difference is None else PairedDifference(difference, decimals)


def _records(arm: str, of_arm: Mapping[int, Mapping[str, Any]], titles: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of table.csv: one per intervention and metric."""
    for intervention in titles:
        for metric in next(iter(of_arm.values()))["undisturbed"]:
            own = {seed: a["undisturbed"][metric] for seed, a in of_arm.items() if metric in a["undisturbed"]}
            disturbed = _disturbed(of_arm, intervention, metric)
            if (difference := paired_difference(disturbed, own)) is not None:
                yield {
                    "arm": arm,
                    "intervention": intervention,
                    "metric": metric,
                    "n": difference.n,
                    "own": sum(own[seed] for seed in difference.seeds) / difference.n,
                    "disturbed": sum(disturbed[seed] for seed in difference.seeds) / difference.n,
                    "difference": difference.mean,
                    "low": difference.low,
                    "high": difference.high,
                }


def _disturbed(of_arm: Mapping[int, Mapping[str, Any]], intervention: str, metric: str) -> dict[int, float]:
    effects = {seed: about["interventions"].get(intervention, {}) for seed, about in of_arm.items()}
    return {seed: effect["metrics"][metric] for seed, effect in effects.items() if metric in effect.get("metrics", {})}


def _of_effects(about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for intervention, effect in about["interventions"].items():
        for metric, difference in effect["differences"].items():
            low, high = effect["intervals"].get(metric, (None, None))
            yield {
                "intervention": intervention,
                "metric": metric,
                "own": about["undisturbed"][metric],
                "disturbed": effect["metrics"][metric],
                "difference": difference,
                "low": low,
                "high": high,
            }


def _sentence(abouts: Sequence[Mapping[str, Any]]) -> str:
    """On which images models were judged, and where their offsets were replaced."""
    images = [f"{number:,}" for number in sorted({about["images"] for about in abouts})]
    layers = {about["key"].get("layer") for about in abouts}
    where = "every layer that predicts" if layers == {None} else " or ".join(sorted(map(str, layers))) + " alone"
    return (
        f"Judged on {' to '.join(dict.fromkeys((images[0], images[-1])))} images of {abouts[0]['dataset']}, recipe "
        f"{abouts[0]['experiment']}; offsets are replaced in {where}, and nothing is trained. Later layers predict "
        "from what the disturbed ones before them give."
    )


def _of_one_kind(abouts: Collection[Mapping[str, Any]]) -> Iterator[str]:
    """Where runs were judged by different code or on different images, e.g. on machines with other copies of them."""
    for column, kind in (("code_fingerprint", "by different code"), ("data_fingerprint", "on different data")):
        judged: dict[str, list[str]] = {}
        for about in abouts:
            judged.setdefault(str(about.get(column, "unknown")), []).append(about["name"])
        if len(judged) > 1:
            groups = "; ".join(f"{fingerprint}: {', '.join(runs)}" for fingerprint, runs in judged.items())
            yield f"Interventions were judged {kind} ({groups})."


def _cautions(about: Mapping[str, Any]) -> Iterator[str]:
    """What could not be done, and where the run itself found another value, e.g. on another device."""
    for reason in about["impossible"].values():
        yield f"{about['name']}: {reason}."
    for metric, value in about["otherwise"].items():
        yield (
            f"{about['name']}, with its own offsets: {metric} is {about['undisturbed'][metric]} here, but {value} in "
            "its summary."
        )


def _label(metric: Mapping[str, Any]) -> str:
    return f"{metric['label']} ({metric['unit']})" if metric["unit"] else str(metric["label"])


def _grid(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> Grid:
    return grid(header, "l" + "r" * (len(header) - 1), rows)
