"""The tasks that a recipe can name, and what planning and reports know of them. Must not import torch.

A task of another package joins by an entry point of group ``atm.tasks``: its name → ``package.module:ENTRY``, a
``TaskEntry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from errors import ConfigError, unknown

if TYPE_CHECKING:
    from experiments.schema import Config
    from experiments.tasks import Task

GROUP = "atm.tasks"


@dataclass(frozen=True)
class TaskEntry:
    """module: ``package.module:Class``, called with a config; metric: the one that reports show unless told otherwise.

    metric is its name in an ``Evaluation``; label (``labels``: by data set), unit, decimals and chance level say how
    reports print it; even_classes: chance is what a guess among ``data.num_classes`` classes is worth. sections: of the
    config schema, those that no other task reads; refused: those of other tasks that it has in its identity and does
    not read.
    """

    module: str
    metric: str
    label: str
    unit: str = "%"
    decimals: int = 2
    chance: float | None = None
    sections: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    even_classes: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def label_of(self, config: Config) -> str:
        return self.labels.get(config.data.dataset, self.label)

    def chance_level(self, config: Config) -> float | None:
        """In the unit of the metric; None where nobody stated it."""
        if self.even_classes and config.data.num_classes:
            return 100.0 / config.data.num_classes
        return self.chance


TASKS: dict[str, TaskEntry] = {
    "classification": TaskEntry(
        "experiments.tasks.classification:Classification", metric="top1", label="Top-1", sections=("augment",)
    ),
    "token_labelling": TaskEntry(
        "experiments.tasks.token_labelling:TokenLabelling",
        metric="token_accuracy",
        label="Object-token accuracy",
        even_classes=True,
        labels=dict.fromkeys(("search", "pair", "diagonal", "match"), "Cue accuracy"),
    ),
    "segmentation": TaskEntry(
        "experiments.tasks.segmentation:Segmentation",
        metric="miou",
        label="mIoU",
        sections=("segment",),
        refused=("augment",),
    ),
    "detection": TaskEntry(
        "experiments.tasks.detection:Detection",
        metric="box_ap",
        label="Box AP",
        sections=("detect",),
        refused=("augment",),
    ),
}
OWN = frozenset(TASKS)
# a section that one task reads, though runs of every task have it in their identity, as they had from the beginning
HASHED_EVERYWHERE = ("augment",)
OF_THE_LOADER = ("augment.repeats",)  # whatever the task


def task_names() -> list[str]:
    """Built-in tasks first, then those of other packages."""
    return [*TASKS, *(name for name in _installed() if name not in TASKS)]


def task_entry(name: str) -> TaskEntry:
    """Raises ConfigError with the nearest name for a task that nobody registered."""
    if name in TASKS:
        return TASKS[name]
    if name not in _installed():
        raise ConfigError(unknown("task", name, task_names()))
    module, _, attribute = _installed()[name].partition(":")
    try:
        entry = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task {name!r} cannot be loaded: {error}") from None
    if not isinstance(entry, TaskEntry):
        raise ConfigError(f"task {name!r}: {_installed()[name]} is not a TaskEntry")
    return entry


def sections_of_other_tasks(task: str) -> set[str]:
    """Sections of the config schema that decide nothing about a run of a task."""
    claimed = {section for entry in TASKS.values() for section in entry.sections}.difference(HASHED_EVERYWHERE)
    return claimed.difference(task_entry(task).sections)


def takes(task: str, key: str) -> bool:
    """Whether a setting, by its dotted key, can be set for runs of a task."""
    section = key.partition(".")[0]
    return key in OF_THE_LOADER or section not in {*sections_of_other_tasks(task), *task_entry(task).refused}


def build_task(config: Config) -> Task:
    """The task of a resolved config. Imports torch."""
    module, _, name = task_entry(config.task).module.partition(":")
    return cast("Task", getattr(import_module(module), name)(config))


@cache
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}
