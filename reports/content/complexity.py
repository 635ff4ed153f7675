"""Parameters and FLOPs, counted, beside every number the papers print for them, compared at printed precision.

Counting needs torch and is the caller's: ``compare`` takes the function that does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from errors import unknown
from reports.content.page import Cell, Grid, Section
from reports.content.values import NOTHING, Count, Text, Value
from reports.specification import COMPLEXITY, SpecificationError
from reports.specification_files import read_yaml
from reports.specification_parts import entries, make
from results import counts, papers

Counter = Callable[[str, dict[str, Any], str, tuple[int, int]], tuple[float, float]]
TableRow = tuple[str, str, str, str]  # source, table, row, head
CLASSIFICATION, BACKBONE = "classification", "backbone"  # heads, as results/published names them
SEGMENTATION, DETECTION = ("Semantic FPN", "UperNet"), ("RetinaNet", "Mask R-CNN", "Cascade Mask R-CNN")
TASKS = {  # task → heads
    CLASSIFICATION: (CLASSIFICATION,),
    "segmentation": SEGMENTATION,
    "detection": DETECTION,
    "dense": SEGMENTATION + DETECTION,
}
METRICS = ("params_m", "flops_g")
STAGES = (1, 2, 3, 4)
HEADER = ("Model", "Size (px)", "Params (M)", "Papers", "FLOPs (G)", "Papers", "Agreement")
SIDES = "lrrrrrl"


@dataclass(frozen=True)
class CountableModel:
    """A model to count: its label, timm name, arguments, head, image size, and where the papers print it.

    size: pixels of a square image, or height and width; head: as in ``results/published``; stages: where the papers
    print the architecture of each stage.
    """

    label: str
    model: str
    size: int | tuple[int, ...]
    head: str = CLASSIFICATION
    kwargs: dict[str, Any] = field(default_factory=dict)
    published: tuple[Mapping[str, str], ...] = ()
    stages: Mapping[str, str] | None = None
    note: str = ""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height, width

    @property
    def variant(self) -> str:
        """The name without the prefix of ATMNet's."""
        return self.model.removeprefix("atmnet_")

    def places(self) -> dict[TableRow, int]:
        """Where the papers print numbers of this model → stage, 0 for the whole model."""
        places = {(place["source"], place["table"], place["row"], self.head): 0 for place in self.published}
        if at := self.stages:
            places |= {(at["source"], at["table"], at["row"].format(stage=stage), BACKBONE): stage for stage in STAGES}
        return places


@dataclass(frozen=True)
class CountComparison:
    """One printed number beside ours. agrees: ours rounds to it; None where the papers print no number."""

    metric: str
    place: str
    printed: str
    note: str
    agrees: bool | None


@dataclass(frozen=True)
class CountedModel:
    """A counted model with its comparisons."""

    row: CountableModel
    params_m: float
    flops_g: float
    comparisons: tuple[CountComparison, ...]

    @property
    def differing(self) -> list[CountComparison]:
        return [c for c in self.comparisons if c.agrees is False]


def rows(only: str | None = None) -> list[CountableModel]:
    """The models of ``specs/complexity.yaml``; ``only`` those of one task of TASKS, timm name or variant."""
    content = read_yaml(COMPLEXITY, [COMPLEXITY])
    models = [_row(row) for row in entries(content, "rows", COMPLEXITY)]
    if only is None:
        return models
    heads = TASKS.get(only.lower(), ())
    chosen = [row for row in models if row.head in heads or only.lower() in (row.model, row.variant)]
    if not chosen:
        raise SpecificationError(unknown("model or task", only, {*TASKS, *(row.variant for row in models)}))
    return chosen


def _row(content: Any) -> CountableModel:
    row = make(CountableModel, content, COMPLEXITY)
    if not isinstance(row.size, int) and len(row.size) != 2:
        raise SpecificationError(f"{COMPLEXITY}, {row.label}: size: expected one number, or height and width")
    heads = [head for group in TASKS.values() for head in group]
    if row.head not in heads:
        raise SpecificationError(f"{COMPLEXITY}, {row.label}: {unknown('head', row.head, heads)}")
    return row


def unpublished(label: str, model: str, size: int) -> list[CountableModel]:
    """A model of timm that the papers print nothing about, as ``rows`` gives those of the specification."""
    return [CountableModel(label=label, model=model, size=size)]


@cache
def counted_at() -> dict[tuple[TableRow, str], float]:
    """Place in the papers' tables, metric → the committed count of the model that is printed there."""
    known = counts.load()
    by_model = {(label, stage): {} for label, stage, _ in known}  # type: dict[tuple[str, int], dict[str, float]]
    for (label, stage, metric), value in known.items():
        by_model[label, stage][metric] = value
    return {
        (place, metric): value
        for model in rows()
        for place, stage in model.places().items()
        for metric, value in by_model.get((model.label, stage), {}).items()
    }


def compare(count: Counter, models: Sequence[CountableModel] | None = None) -> list[CountedModel]:
    """Counts every model: ``count(timm name, arguments, head, (height, width))`` gives parameters in M, FLOPs in G."""
    counted = []
    for row in rows() if models is None else models:
        params_m, flops_g = count(row.model, dict(row.kwargs), row.head, row.image_size)
        ours = {"params_m": params_m, "flops_g": flops_g}
        comparisons = [
            _compare(metric, ours[metric], papers.number(**place, metric=metric, head=row.head))
            for place in row.published
            for metric in METRICS
            if metric in papers.metrics(**place, head=row.head)
        ]
        counted.append(CountedModel(row, params_m, flops_g, tuple(comparisons)))
    return counted


def rounds_to(value: float, number: papers.Number) -> bool:
    """Whether ``value`` is the printed number at the precision it was printed with."""
    assert number.value is not None
    return abs(value - number.value) <= 0.5 * 10.0**-number.decimals + 1e-9


def section(counted: Sequence[CountedModel]) -> Section:
    """The comparison as a table, with what is known about its rows."""
    rows: list[tuple[Value, ...]] = [
        (
            Text(item.row.label),
            _size(item.row),
            Count(item.params_m),
            _printed(item, "params_m"),
            Count(item.flops_g),
            _printed(item, "flops_g"),
            _agreement(item),
        )
        for item in counted
    ]
    grid = Grid(HEADER, SIDES, tuple((tuple(map(Cell, row)),) for row in rows))
    return Section(COMPLEXITY, "Parameters and FLOPs", grid=grid, legend=(*notes(counted), summary(counted)))


def to_json(counted: Sequence[CountedModel]) -> str:
    """The comparison as one JSON document."""
    listed = [
        {
            "label": item.row.label,
            "model": item.row.model,
            "kwargs": item.row.kwargs,
            "head": item.row.head,
            "size": item.row.size,
            "params_m": round(item.params_m, 6),
            "flops_g": round(item.flops_g, 6),
            "published": [asdict(comparison) for comparison in item.comparisons],
            "note": item.row.note,
        }
        for item in counted
    ]
    return json.dumps({"report": COMPLEXITY, "rows": listed}, ensure_ascii=False, indent=1)


def summary(counted: Sequence[CountedModel]) -> str:
    judged = [c for item in counted for c in item.comparisons if c.agrees is not None]
    if not judged:
        return "The papers print no number to compare with."
    return f"{sum(bool(c.agrees) for c in judged)} of {len(judged)} printed numbers agree at their printed precision."


def notes(counted: Sequence[CountedModel]) -> list[str]:
    """What is known about rows, and where the printed numbers stand that ours do not round to."""
    lines = []
    for item in counted:
        places = ", ".join(f"{c.printed} ({c.place})" for c in item.differing)
        sentences = [f"ours differs from {places}." if places else "", item.row.note]
        if any(sentences):
            lines.append(f"{item.row.label}: {' '.join(filter(None, sentences))}")
    return lines


def _size(row: CountableModel) -> Value:
    return Count(row.size, 0) if isinstance(row.size, int) else Text(" × ".join(map(str, row.size)))


def _compare(metric: str, ours: float, number: papers.Number) -> CountComparison:
    agrees = None if number.value is None else rounds_to(ours, number)
    return CountComparison(metric, number.place, number.printed, number.note, agrees)


def _printed(item: CountedModel, metric: str) -> Text:
    """The printed numbers, equal ones once; those that differ from ours are marked."""
    numbers = [
        f"{c.printed}{'' if c.agrees else ' ≠'}" if c.printed else c.note
        for c in item.comparisons
        if c.metric == metric
    ]
    return Text(" / ".join(dict.fromkeys(numbers))) if numbers else NOTHING


def _agreement(item: CountedModel) -> Text:
    if all(c.agrees is None for c in item.comparisons):
        return NOTHING
    judged = sum(c.agrees is not None for c in item.comparisons)
    return Text(f"{len(item.differing)} of {judged} differ" if item.differing else "agrees")
