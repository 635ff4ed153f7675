"""The command ``plan=``: how many seeds and images, and what price, resolve a difference, from pilot runs. No torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from errors import ConfigError, unknown
from pasted_command import command
from reports import specification_files
from reports.content.build_table import build
from reports.content.images import ImageComparisons
from reports.content.table import TaskTable
from reports.specification import Specification
from results import archive
from results.collect import collect
from results.fill import filled
from results.statistics import planning
from results.statistics.estimates import LEVEL, POWER, Spread
from results.statistics.planning import CONFIDENCE, ImageSpread
from run_format import DONE
from sweeps.commands import PlannedSweep, planned_for_reports
from sweeps.price import in_hours
from yaml_files import called

FURTHER = 2  # times as many seeds as these images need: with so many, images are counted for new ones


@dataclass(frozen=True)
class PlanRequest:
    """What is to be resolved: a difference, in points, with which power, among how many comparisons.

    metric: None for the main one of the sweep's own task; arms: those whose pilots count, None for all.
    """

    resolve: float
    power: float = POWER
    confidence: float = CONFIDENCE
    comparisons: int = 1
    metric: str | None = None
    arms: tuple[str, ...] | None = None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> PlanRequest:
        """Removes the keys of a request from the settings of a command line. Raises ConfigError."""
        if "resolve" not in given:
            raise ConfigError("plan=SWEEP resolve=0.5: which difference, in points of the metric, is to be resolved?")
        arms = given.pop("arms", None)
        arms = [arms] if isinstance(arms, str) else arms
        if arms is not None and (not isinstance(arms, list) or len(arms) < 2):
            raise ConfigError(f"arms={arms}: name at least two, e.g. arms=[zero,axial]")
        comparisons = given.pop("comparisons", 1)
        if type(comparisons) is not int or comparisons < 1:
            raise ConfigError(f"comparisons={comparisons}: give the number of tests that are corrected together")
        metric = given.pop("metric", None)
        return cls(
            _number(given, "resolve", 0.0, float("inf")),
            _number(given, "power", 1 - LEVEL, 1.0, POWER),
            _number(given, "confidence", 0.0, 1.0, CONFIDENCE),
            comparisons,
            None if metric is None else str(metric),
            None if arms is None else tuple(map(str, arms)),
        )

    @property
    def level(self) -> float:
        return planning.corrected_level(self.comparisons)


@dataclass(frozen=True)
class Pilots:
    """Finished runs: those of ``arms`` of a table. where: run folders or measured results."""

    table: TaskTable
    arms: tuple[str, ...]
    where: str

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for row in self.table.rows if row.arm in self.arms for seed in row.values})

    @property
    def runs(self) -> int:
        return sum(len(row.values) for row in self.table.rows if row.arm in self.arms)

    def spread(self) -> Spread | None:
        return planning.paired_spread([row.values for row in self.table.rows if row.arm in self.arms and row.values])

    def images(self) -> ImageSpread | None:
        """From the arms against the baseline, or the first of them; None where images were not recorded."""
        first, *others = sorted(self.arms, key=lambda arm: arm != self.table.baseline)
        compared = ImageComparisons(self.table.collected, self.table.metric.metric)
        found = [compared.differences([arm], [first]) for arm in others]
        return planning.image_spread([each for each in found if each is not None])

    def hours(self) -> float | None:
        """Device-hours of a run as the pilots took, without start-up; None where they did not say."""
        runs = self.table.runs
        seconds = runs.loc[runs["arm"].isin(self.arms) & (runs["state"] == DONE), "wall_s"].dropna()
        return float(seconds.mean()) / 3600 if len(seconds) else None


def plan_seeds(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Prints seeds, images and price; ``--json`` as one document. Raises ConfigError where there are too few pilots."""
    request = PlanRequest.taken_from(given)
    spec = specification_files.find(name, planned="measured" not in given)
    if not isinstance(spec, Specification):
        raise ConfigError(f"plan={name}: plans seeds of one sweep, and {name} shows several")
    pilots, planned = _pilots(spec, given, request, mixed=options.mixed)
    found = SeedPlan.of(request, pilots, planned)
    print(json.dumps(found.document()) if options.json else "\n".join(found.lines()))
    return 0


@dataclass(frozen=True)
class SeedPlan:
    """What pilots say about a request. sd, upper: of paired differences, in points, and its upper confidence bound.

    seeds: for these images; by_sd: of a plan by the plain deviation; on_images: for new images, with as many as the
    pilots had; None where no number of seeds is enough. further: then, with FURTHER times ``seeds``, so many images.
    each: device-hours of a run; priced: whether a probe timed it, on ``hardware``, or the pilots took so long.
    """

    request: PlanRequest
    pilots: Pilots
    sd: float
    freedom: float
    upper: float
    seeds: int | None
    by_sd: int | None
    images: ImageSpread | None
    on_images: int | None
    further: int | None
    each: float | None
    hardware: str

    @classmethod
    def of(cls, request: PlanRequest, pilots: Pilots, planned: PlannedSweep | None) -> SeedPlan:
        """planned: None for measured results, whose price only the runs themselves say."""
        spread = pilots.spread()
        sweep = pilots.table.spec.sweep
        if spread is None:
            raise ConfigError(
                f"plan={sweep}: the pilots in {pilots.where} are {pilots.runs} runs of arms {', '.join(pilots.arms)} "
                f"and seeds {', '.join(map(str, pilots.seeds))}; a deviation needs two arms with two seeds in common"
            )
        if spread.sd <= 0:
            raise ConfigError(f"plan={sweep}: the differences of the pilots in {pilots.where} do not vary over seeds")
        upper = planning.upper_bound(spread, request.confidence)
        test = (request.level, request.power)
        seeds = planning.seeds_needed(request.resolve, upper, *test)
        images = pilots.images()
        on_images = planning.seeds_on_images(request.resolve, upper, images, images.images, *test) if images else None
        further = None
        if images and seeds and on_images is None:
            further = planning.images_needed(request.resolve, upper, images, FURTHER * seeds, *test)
        each, hardware = _hours(pilots, planned)
        by_sd = planning.seeds_needed(request.resolve, spread.sd, *test)
        return cls(
            request, pilots, spread.sd, spread.freedom, upper, seeds, by_sd, images, on_images, further, each, hardware
        )

    def lines(self) -> Iterator[str]:
        request, metric, pilots = self.request, self.pilots.table.metric, self.pilots
        sweep, unit = f"{pilots.table.spec.sweep} ({pilots.table.protocol})", metric.unit
        test = f"a two-sided paired t-test at {1 - LEVEL:.2g}"
        if request.comparisons > 1:
            test += f" after Holm's correction over {request.comparisons} comparisons"
        yield (
            f"{sweep}: a difference of {request.resolve:g} points of {metric.label} ({unit}) between two arms, found "
            f"with a power of {100 * request.power:g} % by {test}"
        )
        yield (
            f"pilots: {pilots.runs} runs of {len(pilots.arms)} arms, seeds {', '.join(map(str, pilots.seeds))}, in "
            f"{pilots.where}"
        )
        yield (
            f"paired differences scatter over seeds with {self.sd:.3g} points, with {100 * request.confidence:g} % "
            f"confidence at most {self.upper:.3g} ({self.freedom:g} degrees of freedom), by which this is planned"
        )
        yield (
            f"these images: {_counted(self.seeds, 'seeds')} per arm (by {self.sd:.3g} points, which may be too small: "
            f"{_counted(self.by_sd, 'seeds')})"
        )
        yield from self._image_lines()
        yield from self._price_lines()

    def document(self) -> dict[str, Any]:
        table = self.pilots.table
        return {
            "sweep": table.spec.sweep,
            "protocol": table.protocol,
            **asdict(self.request),
            "metric": table.metric.metric,
            "level": 1 - self.request.level,
            "pilots": {
                "arms": self.pilots.arms, "seeds": self.pilots.seeds, "runs": self.pilots.runs,
                "where": self.pilots.where,
            },
            "sd": self.sd,
            "degrees_of_freedom": self.freedom,
            "sd_upper": self.upper,
            "seeds": self.seeds,
            "seeds_by_sd": self.by_sd,
            "images": self.images.images if self.images else None,
            "seeds_new_images": self.on_images,
            "seeds_with_more_images": FURTHER * self.seeds if self.further and self.seeds else None,
            "more_images": self.further,
            "hours_per_run": self.each,
            "hours_two_arms": 2 * self.seeds * self.each if self.seeds and self.each else None,
            "hardware": self.hardware,
        }  # fmt: skip

    def _image_lines(self) -> Iterator[str]:
        if self.images is None:
            yield "new images: not known, as the pilots recorded no images"
            return
        had = f"{self.images.images:,} images"
        if self.on_images is not None:
            yield f"new images: {self.on_images:,} seeds per arm on {had}"
            return
        more = f"; {FURTHER * self.seeds:,} seeds on {self.further:,} images" if self.further and self.seeds else ""
        yield f"new images: no number of seeds is enough on {had}{more}"

    def _price_lines(self) -> Iterator[str]:
        if self.seeds is None:
            return
        if self.each is None:
            yield f"price: not known; {command(f'price={self.pilots.table.spec.sweep}')} measures it"
            return
        arms = len(self.pilots.table.rows)
        of_two, of_all = (in_hours(number * self.seeds * self.each) for number in (2, arms))
        yield (
            f"price: {of_two} device-hours for two arms, {of_all} for all {arms}, at {in_hours(self.each)} per run "
            f"({self.hardware})"
        )


def _pilots(
    spec: Specification, given: dict[str, Any], request: PlanRequest, *, mixed: bool
) -> tuple[Pilots, PlannedSweep | None]:
    """The finished runs of a sweep's own task, in run folders or collected, or in measured results that are named."""
    label = given.pop("measured", None)
    if label is not None and given:
        raise ConfigError(f"measured={label} names results; {next(iter(given))} cannot change them")
    planned = None
    if label is not None:
        folder = archive.folder(str(label))
        collected = archive.read(folder)
        content, where = archive.plan_of(collected), f"results/measured/{label}"
        if content["sweep"] != called(spec.sweep):
            raise ConfigError(f"measured={label} is of sweep {content['sweep']}, and plan={spec.name} of {spec.sweep}")
    else:
        planned = planned_for_reports(spec.sweep, given)
        content, where = planned.plan, str(planned.runs_dir)
        collected = filled(collect(content, planned.runs_dir, planned.states()), content, planned.measured())
    if not (collected.runs["state"] == DONE).any():
        raise ConfigError(f"plan={spec.name}: no pilot run has finished in {where}{_elsewhere(content)}")
    return _of_table(build(spec, collected, content, mixed=mixed).first, request, where), planned


def _of_table(table: TaskTable, request: PlanRequest, where: str) -> Pilots:
    by_metric = {each.metric.metric: each for each in (table, *table.further)}
    if request.metric is not None and request.metric not in by_metric:
        raise ConfigError(unknown("metric", request.metric, by_metric))
    chosen = by_metric[request.metric] if request.metric else table
    arms = [row.arm for row in chosen.rows]
    for arm in request.arms or ():
        if arm not in arms:
            raise ConfigError(unknown(f"arm of sweep {table.spec.sweep}", arm, arms))
    finished = [row.arm for row in chosen.rows if row.values]
    return Pilots(chosen, request.arms or tuple(finished), where)


def _elsewhere(plan: Mapping[str, Any]) -> str:
    """Which measured results of the sweep there are, whatever code they are of."""
    labels = [
        label
        for label in archive.labels()
        if archive.plan_of(archive.read(archive.folder(label)))["sweep"] == plan["sweep"]
    ]
    if labels:
        return f"; measured={labels[0]} takes committed ones" + (f", as {', '.join(labels[1:])}" if labels[1:] else "")
    start = command(f"sweep={plan['sweep']}", f"protocol={plan['protocol']}", "seeds=[0,1,2]")
    return f"; to start some: {start}"


def _hours(pilots: Pilots, planned: PlannedSweep | None) -> tuple[float | None, str]:
    """Device-hours of one run of the pilots' arms, and where they are known from."""
    if planned is not None:
        hours, unit = planned.hours()
        runs = {entry["run"] for entry in planned.plan["runs"] if entry["arm"] in pilots.arms}
        if known := [hours[run] for run in runs if run in hours]:
            return sum(known) / len(known), unit
    return pilots.hours(), "as the pilots took"


def _counted(number: int | None, what: str) -> str:
    return f"more than {planning.MOST:,} {what}" if number is None else f"{number:,} {what}"


def _number(given: dict[str, Any], key: str, low: float, high: float, default: float | None = None) -> float:
    value = given.pop(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        between = f"between {low:.2g} and {high:.2g}" if high < float("inf") else f"above {low:.2g}"
        raise ConfigError(f"{key}={value}: give a number {between}")
    return float(value)
