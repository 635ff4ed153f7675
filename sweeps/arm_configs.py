"""The config of every run of a sweep: recipe, settings of protocol and arm, words of the command line. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from errors import ConfigError
from experiments.config import SHORT, get, read_recipe, resolve
from experiments.data.registry import check_root
from experiments.schema import Config, Data
from experiments.tasks.registry import takes
from sweeps.sweep_file import ARM_PARTS

OF_THE_IMAGES = ("model.dims", "model.window_size")  # what their size decides, where nothing is given
OF_A_DATA_SET = ("data.root", "data.reader")  # a word of the command line that says where one data set is


@dataclass(frozen=True)
class ArmConfigs:
    """Makes the configs of a sweep's arms for any seed; ``init`` names the parent arm in place of its run."""

    sweep_name: str
    sweep: Mapping[str, Any]
    protocol: str
    overrides: Mapping[str, Mapping[str, Any]]  # by the task of a recipe
    site: Mapping[str, Any] | None

    def own(self, arm: str) -> Config:
        """Of an arm's run of the sweep's own task."""
        body = self.sweep["arms"][arm]
        recipe = self._recipe(f"arm {arm!r}", body.get("recipes", self.sweep["recipes"]))
        settings = {key: value for key, value in body.items() if key not in ARM_PARTS}
        start = {"init": body["start_from"]} if "start_from" in body else {}
        return self._resolved(recipe, self._common(), settings, self._words(recipe), start)

    def downstream(self, arm: str, task: str, start: Config) -> Config:
        """Of an arm's run of a downstream task; of the settings of its own run only those of the model apply.

        start: the config of the arm's own run.
        """
        body = self.sweep["arms"][arm]
        recipe = self._recipe(f"task {task!r}", self.sweep["downstream"][task])
        model = _model_settings(self._common()) | _model_settings(body)
        model = {key: value for key, value in model.items() if key != "model.match"} | {
            key: value for key in OF_THE_IMAGES if (value := get(start, key)) is not None
        }
        words = dict(self._words(recipe))
        if read_recipe(recipe).get("data.dataset", Data.dataset) != start.data.dataset:
            words = {key: value for key, value in words.items() if key not in OF_A_DATA_SET}
        try:
            of_task = self.sweep["task_settings"].get(task, {}).get(self.protocol, {})
            return self._resolved(recipe, of_task, model, body["downstream"].get(task, {}), words, {"init": arm})
        except ConfigError as error:
            raise ConfigError(f"sweep {self.sweep_name}: task {task!r} of arm {arm!r}: {error}") from None

    def without(self, arm: str, task: str, keys: Collection[str]) -> Config:
        """Of an arm's run of a task, without some words of the command line, given by their long keys."""
        words = {
            of_task: {key: value for key, value in given.items() if SHORT.get(key, key) not in keys}
            for of_task, given in self.overrides.items()
        }
        fewer = replace(self, overrides=words)
        own = fewer.own(arm)
        return own if task == first_task_of(self.sweep, self.protocol) else fewer.downstream(arm, task, own)

    def _words(self, recipe: str) -> Mapping[str, Any]:
        return self.overrides[_task_of(recipe)]

    def _common(self) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self.sweep.get("settings", {}).get(self.protocol, {})
        return settings

    def _recipe(self, who: str, recipes: Mapping[str, str]) -> str:
        if self.protocol not in recipes:
            choose = "arms=[…]" if who.startswith("arm") else "tasks=[…]"
            raise ConfigError(
                f"sweep {self.sweep_name}: {who} has no recipe for protocol {self.protocol}, only for "
                f"{', '.join(recipes)}; choose others with {choose}"
            )
        recipe = recipes[self.protocol]
        own = read_recipe(recipe).get("protocol", Config.protocol)
        if own != self.protocol:
            raise ConfigError(
                f"sweep {self.sweep_name}: {who}: recipe {recipe} is of protocol {own}, not {self.protocol}"
            )
        return recipe

    def _resolved(self, recipe: str, *layers: Mapping[str, Any]) -> Config:
        config = resolve(recipe, *layers, site=self.site)
        if config.data.num_classes is None:
            check_root(config)
        return config


def first_task_of(sweep: Mapping[str, Any], protocol: str) -> str:
    """The sweep's own task, which is the one of its recipe."""
    return _task_of(sweep["recipes"][protocol])


def _task_of(recipe: str) -> str:
    return str(read_recipe(recipe).get("task", Config.task))


def words_by_task(words: Mapping[str, Any], sweep: Mapping[str, Any], protocol: str) -> dict[str, dict[str, Any]]:
    """The settings of the command line by task, each without those that only another task of the sweep has."""
    recipes = [sweep["recipes"], *(body.get("recipes", {}) for body in sweep["arms"].values())]
    recipes += sweep["downstream"].values()
    tasks = {_task_of(by_protocol[protocol]) for by_protocol in recipes if protocol in by_protocol}
    nobodys = {key for key in words if not any(takes(task, key) for task in tasks)}  # refused in every task
    return {task: {key: value for key, value in words.items() if takes(task, key) or key in nobodys} for task in tasks}


def _model_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if SHORT.get(key, key).startswith("model.")}
