"""Whether the code of this checkout is that of a run that is long over. Must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from errors import SuiteError
from experiments.config import read_recipe
from experiments.data.registry import DATASETS
from experiments.folder.fingerprint import chosen_fingerprint
from experiments.plugin import plugin_module
from experiments.schema import MIXERS, Config, Data


def is_present(recorded: str, experiment: str, settings: Mapping[str, Any]) -> bool | None:
    """Whether ``recorded``, the code fingerprint of a run, is that of the same run by the code of this checkout.

    experiment: the run's recipe; settings: dotted keys that its sweep changed, as far as they choose a task, a mixer or
    a data set. None where it cannot be told: the recipe, the task, the mixer or the data set is not here. A mixer of
    one's own, which has ``model.mixer_source``, is no part of it: which version of its file it is, the run's id says.
    """
    try:
        chosen = {**read_recipe(experiment), **settings}
        task, dataset = str(chosen.get("task", Config.task)), str(chosen.get("data.dataset", Data.dataset))
        mixer = chosen.get("model.mixer")
        own = chosen.get("model.mixer_source") is not None
        if not recorded or not (own or mixer in (None, *MIXERS) or plugin_module("atm.mixers", mixer)):
            return None
        same = chosen_fingerprint(task, dataset) == recorded
    except SuiteError:
        return None
    # the name of a data set of another package that is missing looks like that of a folder of images
    return same if same or dataset in DATASETS or plugin_module("atm.datasets", dataset) else None
