"""The schema of one run, and how recipe, site, arm and command line are merged into it. Must not import torch.

Every field says what it is and whether it is *scientific*: scientific settings decide the numbers a run produces and
make up its identity; the others (paths, workers, device) may change between two starts of one run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from errors import ConfigError, unknown

try:  # the same in C: a config is read or written ten times as fast
    from yaml import CSafeDumper as Dumper
    from yaml import CSafeLoader as Loader
except ImportError:
    from yaml import SafeDumper as Dumper  # type: ignore[assignment]
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "experiments" / "recipes"
OFFSET_MODES = ("zero", "token", "joint", "axial")
FUSIONS = ("pooled", "token", "mean")
SHORT = {"model": "model.name", "devices": "machine.devices"}  # keys that may be written without their section
LEAST = {
    "seed": 0,
    "augment.repeats": 1,
    "data.workers": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.lr": 0,
    "train.warmup_epochs": 0,
    "train.eval_every": 1,
    "machine.threads": 1,
    "machine.devices": 1,
    "machine.batch_per_device": 2,
    "machine.timeout_minutes": 0,
    "machine.checkpoint_minutes": 0,
    "machine.keep_checkpoints": 2,
    "machine.keep_every_epochs": 1,
    "machine.failed_saves": 1,
    "slurm.nodes": 1,
    "slurm.gpus_per_node": 0,
    "slurm.cpus_per_task": 1,
    "slurm.mem_gb": 0,
    "slurm.time_minutes": 1,
    "slurm.signal_seconds": 1,
    "slurm.max_timeouts": 0,
}


def setting(default: Any, says: str, *, choices: tuple[str, ...] = (), scientific: bool = True) -> Any:
    metadata = {"says": says, "choices": choices, "scientific": scientific}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Model:
    """The variant and the ablation switches of ``atm``."""

    name: str = setting("xt", "variant: nano, xt, t, s, b, l")
    offsets: str = setting("axial", "offset mode", choices=OFFSET_MODES)
    samples: int = setting(1, "tokens read per channel and direction: 1 or 3")
    peg: bool | None = setting(None, "positional encoding generator; null = wherever offsets are predicted")
    offset_sharing: Any = setting(
        None, "S, neighbouring channels that share one offset: a number, one per stage, or null"
    )
    offset_interval: Any = setting(
        None, "K, blocks per offset prediction: a number, 'stage', or null for the variant's"
    )
    fusion: str = setting("pooled", "how the branches are weighted", choices=FUSIONS)
    drop_path: float | None = setting(None, "stochastic depth of the last block; null = the variant's ImageNet rate")


@dataclass
class Data:
    dataset: str = setting("imagenet", "what the images are; names the entry of site.yaml that says where they are")
    root: str | None = setting(None, "folder or file of the images", scientific=False)
    reader: str = setting("", "timm data-set name: '' for folders and tar files, wds/…, hfds/…", scientific=False)
    train_split: str = setting("train", "split trained on")
    eval_split: str = setting("validation", "split judged on")
    num_classes: int | None = setting(None, "classes; null = as many as the training split has class folders")
    image_size: list[int] = setting([224, 224], "height and width in pixels")
    train_images: int | None = setting(None, "images per epoch; null = all there are")
    eval_images: int | None = setting(None, "images judged; null = all there are")
    bad_image_tolerance: float = setting(0.001, "share of unreadable training images replaced before the run fails")
    workers: int = setting(4, "loader processes; 0 loads in the training process", scientific=False)


@dataclass
class Augment:
    auto_augment: str | None = setting(None, "timm policy, e.g. rand-m9-mstd0.5-inc1")
    scale: list[float] = setting([0.08, 1.0], "share of the image that a random crop keeps")
    hflip: float = setting(0.5, "probability of a horizontal flip")
    color_jitter: float = setting(0.4, "strength, used where no auto_augment policy is")
    interpolation: str = setting("bicubic", "resampling", choices=("bicubic", "bilinear", "random"))
    erase: float = setting(0.0, "probability of random erasing (pixel mode, one rectangle)")
    mixup: float = setting(0.0, "alpha of mixup, 0 = off")
    cutmix: float = setting(0.0, "alpha of cutmix, 0 = off")
    mix_switch: float = setting(0.5, "probability of cutmix rather than mixup where both are on")
    smoothing: float = setting(0.0, "label smoothing")
    repeats: int = setting(1, "repeated augmentation: views of each image within an epoch's sample")
    crop_pct: float = setting(0.875, "evaluation: share of the resized image that the centre crop keeps")


@dataclass
class Train:
    epochs: int = setting(300, "passes over the training set")
    batch_size: int = setting(1024, "effective batch over all devices")
    optimizer: str = setting("adamw", "timm optimizer name")
    lr: float = setting(1e-3, "peak learning rate, stated for lr_batch")
    lr_batch: int | None = setting(None, "batch that lr is stated for, scaled linearly; null = lr as it is")
    min_lr: float = setting(1e-5, "learning rate at the end of the cosine")
    weight_decay: float = setting(0.05, "none on biases, norms and PEG")
    warmup_epochs: float = setting(5.0, "linear warm-up")
    warmup_lr: float = setting(1e-6, "learning rate warm-up starts from")
    schedule_on: str = setting("epoch", "when the learning rate moves", choices=("epoch", "step"))
    clip_grad: float | None = setting(None, "gradient norm bound; null = off")
    ema_decay: float | None = setting(None, "decay of the averaged weights; null = no average")
    precision: str = setting("float32", "autocast type", choices=("float32", "bfloat16", "float16"))
    eval_every: int = setting(1, "epochs between evaluations; the last epoch is always judged")
    deterministic: bool = setting(False, "PyTorch's deterministic algorithms only (GPU)", scientific=False)


@dataclass
class Machine:
    """Where and how a run is executed. Never part of its identity."""

    device: str = setting("auto", "auto, cpu, cuda, cuda:1", scientific=False)
    threads: int | None = setting(None, "CPU threads; null = torch's choice", scientific=False)
    compile: bool = setting(False, "torch.compile the model", scientific=False)
    channels_last: bool = setting(False, "channels-last images and convolutions", scientific=False)
    devices: int = setting(1, "processes that train one run together, one per device", scientific=False)
    batch_per_device: int | None = setting(
        None, "images a device takes at once; a larger share of the batch is accumulated; null = all", scientific=False
    )
    timeout_minutes: float = setting(10.0, "wait for a device that does not answer", scientific=False)
    checkpoint_minutes: float = setting(10.0, "minutes between checkpoints within an epoch", scientific=False)
    keep_checkpoints: int = setting(3, "newest checkpoints kept", scientific=False)
    keep_every_epochs: int = setting(100, "the checkpoint after every so many epochs is kept, too", scientific=False)
    failed_saves: int = setting(5, "checkpoints in a row that may fail to be written", scientific=False)


@dataclass
class Slurm:
    """What a run asks of Slurm. Never part of its identity."""

    partition: str | None = setting(None, "partition; null = the cluster's default", scientific=False)
    account: str | None = setting(None, "account that is charged", scientific=False)
    qos: str | None = setting(None, "quality of service", scientific=False)
    constraint: str | None = setting(None, "features that nodes must have, e.g. a100|h100", scientific=False)
    nodes: int = setting(1, "nodes per run; machine.devices are dealt out to them equally", scientific=False)
    gpus_per_node: int | None = setting(
        None, "GPUs per node; null = one per process, none where machine.device=cpu", scientific=False
    )
    cpus_per_task: int | None = setting(
        None, "CPUs per process; null = machine.threads (or 1) and one for each loader process", scientific=False
    )
    mem_gb: float | None = setting(None, "memory per node; null = what the cluster gives", scientific=False)
    time_minutes: int = setting(1440, "time limit of a job; a run takes as many jobs as it needs", scientific=False)
    signal_seconds: int = setting(120, "Slurm says so long before the limit that it nears", scientific=False)
    max_timeouts: int = setting(20, "times a job may reach its time limit and be queued again", scientific=False)
    setup: list[str] = setting([], "shell lines before the run, e.g. module load cuda", scientific=False)
    options: list[str] = setting([], "further sbatch options, e.g. --exclude=node7", scientific=False)
    shared: bool = setting(
        False, "all nodes see the run folders, though their file system does not show it", scientific=False
    )


@dataclass
class Basics:
    """What stands in no section."""

    experiment: str = setting("", "recipe")
    protocol: str = setting("paper", "data, resolution, schedule, batch", choices=("paper", "tiny", "smoke"))
    task: str = setting("classification", "what is learned", choices=("classification", "token_labelling"))
    seed: int = setting(0, "seed of every random choice")
    init: str | None = setting(None, "weights to start from: a run id, or a checkpoint file")


@dataclass
class Config(Basics):
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    machine: Machine = field(default_factory=Machine)
    slurm: Slurm = field(default_factory=Slurm)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def resolve(experiment: str, *overrides: Mapping[str, Any], site: Mapping[str, Any] | None = None) -> Config:
    """The whole config of a run: schema defaults < recipe < site < each of ``overrides``, then checked and completed.

    overrides: dotted keys to values, e.g. ``{"model.offsets": "token", "seed": 1}``, or the short names in SHORT.
    Raises ConfigError in one line for an unknown recipe, key, choice or value.
    """
    recipe = read_recipe(experiment)
    layers = [recipe, *overrides]
    dataset = next((str(o["data.dataset"]) for o in reversed(layers) if "data.dataset" in o), Data.dataset)
    return complete(merge(recipe, site_settings(site or {}, dataset), *overrides, {"experiment": experiment}))


def merge(*layers: Mapping[str, Any]) -> Config:
    """Schema defaults overlaid with layers of dotted keys, each checked for name, type and choice."""
    config = Config()
    for key, value in {_checked_key(key): value for layer in layers for key, value in layer.items()}.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, _typed(key, value))
    return config


def _typed(key: str, value: Any) -> Any:
    """``value`` as the type of a setting, or ConfigError."""
    return copy.copy(_typed_once(key, json.dumps(value, default=str)))


@cache  # the runs of a sweep share most of their settings, and a structured config takes its time
def _typed_once(key: str, text: str) -> Any:
    value = json.loads(text)
    choices = FIELDS[key].metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(unknown(f"value for {key}", value, choices))
    section, _, name = key.rpartition(".")
    try:
        config = OmegaConf.structured(SECTIONS.get(section, Basics))
        OmegaConf.update(config, name, value)
        return getattr(OmegaConf.to_object(config), name)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}") from None


def complete(config: Config) -> Config:
    """Replaces every null that stands for a default by that default, so that identity sees what is run."""
    model = config.model
    variants = read_variants()
    if model.name not in variants:
        raise ConfigError(unknown("model", model.name, variants))
    variant = variants[model.name]
    if model.samples not in (1, 3):
        raise ConfigError(f"model.samples={model.samples}: valid are 1 and 3")
    if model.samples == 3 and model.offsets == "zero":
        raise ConfigError("model.samples=3 needs offsets to sample at: not with model.offsets=zero")
    if model.peg is None:
        model.peg = model.offsets != "zero"
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"])
    model.offset_sharing = _sharing(model, variant)
    model.offset_interval = _interval(model, variant)
    if config.init == "required":
        raise ConfigError(f"experiment={config.experiment} fine-tunes: set init=RUN_ID, or init=PATH of a checkpoint")
    size = config.data.image_size
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"data.image_size={size}: give height and width in pixels, e.g. [224,224]")
    if (config.augment.mixup or config.augment.cutmix) and config.train.batch_size % 2:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}: mixup and cutmix pair images, so it must be even"
        )
    for key, least in LEAST.items():
        value = get(config, key)
        if value is not None and value < least:
            raise ConfigError(f"{key}={value}: must be at least {least}")
    if 2 * config.machine.devices > max(2, config.train.batch_size):
        raise ConfigError(
            f"machine.devices={config.machine.devices}: a batch of {config.train.batch_size} is enough for at most "
            f"{max(1, config.train.batch_size // 2)}, a pair of images each"
        )
    if config.machine.devices % config.slurm.nodes:
        raise ConfigError(
            f"slurm.nodes={config.slurm.nodes}: machine.devices={config.machine.devices} cannot be dealt out equally"
        )
    if config.slurm.signal_seconds >= 60 * config.slurm.time_minutes:
        raise ConfigError(
            f"slurm.signal_seconds={config.slurm.signal_seconds}: must be less than "
            f"slurm.time_minutes={config.slurm.time_minutes}"
        )
    return config


def get(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def scientific(config: Config) -> dict[str, Any]:
    """Dotted keys and values of every setting that decides a run's numbers."""
    return {key: get(config, key) for key, f in FIELDS.items() if f.metadata["scientific"]}


def from_dict(frozen: Mapping[str, Any]) -> Config:
    """A config back from the ``config.yaml`` of a run folder; a way to execute runs that is no more is left out."""
    known = {
        name: {key: value for key, value in frozen.get(name, {}).items() if f"{name}.{key}" in FIELDS}
        for name in ("machine", "slurm")
    }
    return merge(_flatten({**frozen, **known}))


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """``key=value`` words of a command line; values are YAML (``[0,1]``, ``true``, ``1e-3``)."""
    parsed: dict[str, Any] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found or not key:
            raise ConfigError(f"{word!r} is not of the form key=value")
        try:
            # OmegaConf's YAML reads 1e-3 as a number, PyYAML's as text
            value = OmegaConf.to_object(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[call-overload, index]
        except (OmegaConfBaseException, yaml.YAMLError, TypeError):
            raise ConfigError(f"{word!r}: the value is not valid YAML") from None
        parsed[key] = value
    return parsed


@cache
def _recipe(name: str) -> tuple[tuple[str, Any], ...]:
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("experiment", name, recipe_names()))
    return tuple(_flatten(read_yaml(path)).items())


def read_recipe(name: str) -> dict[str, Any]:
    return dict(_recipe(name))


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


@cache
def read_variants() -> dict[str, dict[str, Any]]:
    """atm/variants.yaml, read as a file: importing ``atm`` would import torch."""
    return read_yaml(ROOT / "atm" / "variants.yaml")


def write_yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.dump(dict(content), Dumper=Dumper, sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name}: expected keys and values")
    return content


def read_site(path: Path = ROOT / "site.yaml") -> dict[str, Any]:
    """Values of this machine or cluster (``site.example.yaml`` shows them all); nothing where there is no file."""
    return read_yaml(path) if path.is_file() else {}


def site_settings(site: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The part of a site that concerns a run: where the data set is, and how its machine executes."""
    chosen = {f"data.{k}": v for k, v in _entries(_entries(site, "data"), dataset).items()}
    for section in ("machine", "slurm"):
        chosen.update({f"{section}.{k}": v for k, v in _entries(site, section).items()})
    for key in chosen:
        if FIELDS[_checked_key(key)].metadata["scientific"]:
            raise ConfigError(f"site.yaml: {key} decides a run's numbers; set it in a recipe or on the command line")
    return chosen


def _entries(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entries = section.get(name) or {}
    if not isinstance(entries, Mapping):
        raise ConfigError(f"site.yaml: {name} must hold keys and values, not {entries!r}")
    return entries


def _sharing(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    given, dims = model.offset_sharing, variant["dims"]
    if model.offsets in ("zero", "token"):
        if given is not None:
            raise ConfigError(f"model.offset_sharing={given}: model.offsets={model.offsets} has nothing to share")
        return None
    sharing = variant["offset_sharing"] if given is None else [given] * len(dims) if isinstance(given, int) else given
    if (
        not isinstance(sharing, list)
        or len(sharing) != len(dims)
        or any(not isinstance(s, int) or s < 1 or dim % s for s, dim in zip(sharing, dims))
    ):
        raise ConfigError(
            f"model.offset_sharing={given}: give divisors of the widths {dims}, one number or one per stage"
        )
    return list(sharing)


def _interval(model: Model, variant: Mapping[str, Any]) -> int | str | None:
    given = model.offset_interval
    if model.offsets == "zero" and not model.peg:
        return None
    if given is None:
        return int(variant["offset_interval"])
    if given == "stage":
        return "stage"
    if isinstance(given, int) and given >= 1:
        return given
    raise ConfigError(f"model.offset_interval={given}: give a number of blocks, or stage")


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name in SECTIONS:
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[_checked_key(name)] = value
    return flat


def _checked_key(key: str) -> str:
    key = SHORT.get(key, key)
    if key not in FIELDS:
        raise ConfigError(unknown("key", key, [*FIELDS, *SHORT]))
    return key


def _fields(cls: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for f in dataclasses.fields(cls):
        if f.name in SECTIONS and not prefix:
            yield from _fields(SECTIONS[f.name], f"{f.name}.")
        else:
            yield f"{prefix}{f.name}", f


SECTIONS: dict[str, type] = {
    "model": Model,
    "data": Data,
    "augment": Augment,
    "train": Train,
    "machine": Machine,
    "slurm": Slurm,
}
FIELDS: dict[str, dataclasses.Field[Any]] = dict(_fields(Config))
