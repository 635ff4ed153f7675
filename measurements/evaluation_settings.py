"""Which settings an evaluation takes, and the config that they make of a run's or of a recipe. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown
from experiments.completion import complete
from experiments.config import SHORT, get, merge, resolve, scientific
from experiments.data.registry import check_judged, is_drawn
from experiments.paths import expanded
from experiments.schema import FIELDS, Config
from measurements.finished_run import of_this_machine

KINDS = ("ema", "raw")  # averaged weights, and those that the optimizer moved

# Settings by their keys, or by the beginning of several keys, which ends in a dot or "_".
# Those that decide how a model is judged, or where:
ANYWHERE = (
    *("data.root", "data.reader", "data.workers", "data.eval_split", "data.eval_images"),
    *("train.precision", "train.deterministic"),
    *(f"machine.{name}" for name in ("device", "threads", "sampler", "channels_last", "batch_per_device")),
)
OF_TASKS = {
    "classification": ("augment.crop_pct", "augment.interpolation"),
    "segmentation": ("segment.test_", "segment.resize"),
    "detection": ("detect.resize", "detect.score_threshold", "detect.detections", "detect.test_proposals"),
}
PHOTOGRAPHS_OF_ANY_SIZE = ("segmentation", "detection")  # tasks that fit a photograph within their own ``resize``
# and those that say what the model is and what it was to learn, which a run has and a file has not
OF_MODELS = (
    *("model.", "seed", "data.dataset", "data.num_classes", "data.max_distance", "data.shuffled"),
    *(f"segment.{name}" for name in ("head", "width", "neck", "neck_width", "neck_offsets", "auxiliary")),
    *(f"detect.{name}" for name in ("head", "width", "neck", "neck_offsets", "fc_width", "anchor_scale")),
    "detect.sampling_ratio",
)


def kind_taken_from(settings: dict[str, Any]) -> str | None:
    """Removes ``weights=`` from the settings of a command line: one of KINDS, or None. Raises ConfigError."""
    kind = settings.pop("weights", None)
    if kind is not None and kind not in KINDS:
        raise ConfigError(unknown("value for weights", kind, KINDS))
    return kind  # type: ignore[no-any-return]


def of_run(run: str, frozen: Config, settings: Mapping[str, Any], site: Mapping[str, Any]) -> Config:
    """The config of a run with other settings of its evaluation. Raises ConfigError, DataError."""
    merge(settings)  # refuses unknown keys
    taken = _of_evaluation(frozen.task, frozen.data.dataset)
    for key in settings:
        long = SHORT.get(key, key)
        if _is_among(OF_MODELS, long):
            raise ConfigError(
                f"evaluate={run}: {long} is settled by the run (for its weights under a recipe: "
                f"evaluate=PATH experiment={frozen.experiment} {long}=…)"
            )
        _refuse_idle(run, long, taken)
    given = dict(settings)
    if "segment.test_window" in given:
        given.setdefault("segment.test_stride", None)  # that of the run belongs to its own windows
    config = merge({key: get(frozen, key) for key in FIELDS}, of_this_machine(frozen, site), given)
    if config.data.root is not None:
        config.data.root = str(expanded("data.root", config.data.root))
    complete(config, {SHORT.get(key, key) for key in given})
    check_judged(config)
    return config


def of_file(name: str, settings: Mapping[str, Any], site: Mapping[str, Any]) -> Config:
    """The config of a recipe (``experiment=``) with changes to its model and its evaluation, for a weights file.

    Raises ConfigError, DataError.
    """
    if not expanded("evaluate", name).is_file():
        raise ConfigError(f"evaluate={name}: no such file")
    given = dict(settings)
    experiment = given.pop("experiment", None)
    if experiment is None:
        raise ConfigError(f"evaluate={name} needs experiment=RECIPE, which names its task and data")
    merge(given)  # refuses unknown keys
    recipe = resolve(str(experiment), {"init": None}, site=site)  # the weights exist, whatever they started from
    dataset = str(given.get("data.dataset", recipe.data.dataset))
    taken = (*OF_MODELS, *_of_evaluation(recipe.task, dataset))
    for key in given:
        _refuse_idle(name, SHORT.get(key, key), taken)
    config = resolve(str(experiment), {"init": None}, given, site=site)
    check_judged(config)
    return config


def deciding(config: Config) -> dict[str, Any]:
    """The settings that decide what an evaluation of given weights finds, and where the images are."""
    taken = (*OF_MODELS, *_of_evaluation(config.task, config.data.dataset))
    settings = {key: value for key, value in scientific(config).items() if _is_among(taken, key)}
    root = config.data.root and str(Path(config.data.root).resolve())
    return {"task": config.task, "root": root, **settings}


def several_views(config: Config) -> bool:
    """Whether each image of a segmentation is judged at several sizes, or mirrored, too."""
    return config.task == "segmentation" and (len(config.segment.test_scales) > 1 or config.segment.test_flip)


def changed(config: Config, frozen: Config) -> list[str]:
    """Keys of the settings that decide an evaluation and are not those of the run."""
    ours, theirs = deciding(config), deciding(frozen)
    return [key for key in sorted(ours.keys() | theirs.keys()) if key != "root" and ours.get(key) != theirs.get(key)]


def _of_evaluation(task: str, dataset: str) -> tuple[str, ...]:
    sized = task not in PHOTOGRAPHS_OF_ANY_SIZE or is_drawn(dataset)
    return (*ANYWHERE, *(["data.image_size"] if sized else []), *OF_TASKS.get(task, ()))


def _is_among(settings: tuple[str, ...], key: str) -> bool:
    return any(key.startswith(each) if each.endswith((".", "_")) else key == each for each in settings)


def _refuse_idle(name: str, key: str, taken: tuple[str, ...]) -> None:
    """Raises ConfigError for a setting that no evaluation reads."""
    if not _is_among(taken, key):
        valid = ", ".join(f"{each}…" if each.endswith((".", "_")) else each for each in taken)
        raise ConfigError(f"evaluate={name}: {key} changes nothing about an evaluation (valid: weights, {valid})")
