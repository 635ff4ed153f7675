"""The schema of one run: every setting, its default, what it means and whether it is *scientific*. No torch.

Scientific settings decide the numbers a run produces and make up its identity; the others (paths, workers, device) may
change between two starts of one run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

OFFSET_MODES = ("zero", "token", "joint", "axial")
FUSIONS = ("pooled", "token", "mean")
SAMPLERS = ("auto", "reference", "eager", "native", "triton")  # atm.sampling.BACKENDS, which would import torch
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
    sampler: str = setting(
        "auto", "what reads tokens at their offsets; auto = the fastest there is", choices=SAMPLERS, scientific=False
    )
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
    mem_gb: float | None = setting(
        None, "memory per node, 0 = all of it; null = what the cluster gives", scientific=False
    )
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
