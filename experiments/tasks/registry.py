"""The tasks a recipe can name."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from experiments.schema import Config
from experiments.tasks import Task

TASKS = {
    "classification": "experiments.tasks.classification:Classification",
    "token_labelling": "experiments.tasks.token_labelling:TokenLabelling",
}


def build_task(config: Config) -> Task:
    module, name = TASKS[config.task].split(":")
    return cast(Task, getattr(import_module(module), name)(config))
