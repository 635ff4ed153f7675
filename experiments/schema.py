"""The schema of one run: every setting, its default, what it means and whether it is *scientific*. No torch.

Scientific settings decide the numbers that a run produces and make up its identity; the others (paths, workers, device)
may change between two starts of a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from experiments.dense_schema import Detect, Segment
from experiments.setting import setting

# of atm.mixer, atm.offsets and atm.mixers, which would import torch
OFFSET_MODES = ("zero", "token", "joint", "axial", "static", "shift", "random", "frozen")
PREDICTED = ("token", "joint", "axial", "frozen")  # modes whose offsets depend on the tokens
SHIFT_WIDTH, RANDOM_SPREAD = 1, 4.0
MIXERS = ("atm", "identity", "pool", "dwconv3", "dwconv7", "window", "halo", "global", "deform", "mlp")
FUSIONS = ("pooled", "token", "mean")
SCHEDULES = ("cosine", "polynomial", "multistep")
# of timm.data.auto_augment, which would import torch: RandAugment, AugMix and AutoAugment with their sections
_NUMBER = r"\d+(\.\d+)?"
READER = r"|(?i:hfds|hfids|tfds|wds|torch)/.+"  # any other name would be read as folders, by rules of timm
POLICY = (
    rf"rand(-(m|mstd|mmax|n|p|inc|w){_NUMBER}|-t[a-z]+)*|augmix(-(m|mstd|w|d|b|a){_NUMBER})*"
    rf"|(original|originalr|v0|v0r|3a)(-mstd{_NUMBER})?"
)
SAMPLERS = ("auto", "reference", "eager", "native", "triton")  # atm.sampling.BACKENDS, which would import torch


@dataclass
class Model:
    """The backbone, and the ablation switches of ``atm``, which are null for a backbone of timm's."""

    name: str = setting("xt", "variant of ATMNet: nano, xt, t, s, b, l; or timm/NAME for a model of timm's")
    mixer: str | None = setting(
        "atm",
        "token mixer of every block; PATH.py:NAME is one of your own in a file",
        choices=MIXERS,
        plugins="atm.mixers",
        neutral="atm",
    )
    mixer_source: str | None = setting(
        None, "hash of the source of your own mixer; null = as it is now", pattern=r"[0-9a-f]{16}", neutral=None
    )
    window_size: int | None = setting(
        None,
        "side of the windows of mixer=window and halo in tokens; null = 7 or 8, whichever pads the maps less",
        within="[2, inf)",
        neutral=None,
    )
    dims: Any = setting(None, "channels, one number per stage; null = the variant's", neutral=None)
    match: str | None = setting(
        None,
        "what dims are chosen for, so that the network costs what it would with axial offsets",
        choices=("flops", "params"),
        neutral=None,
    )
    offsets: str | None = setting("axial", "offset mode", choices=OFFSET_MODES)
    samples: int | None = setting(1, "tokens read per channel and direction: 1 or 3", within="[1, 3]")
    shift_width: int | None = setting(
        None, "widest step of offsets=shift in tokens; null = 1 there", within="[1, inf)", neutral=None
    )
    random_spread: float | None = setting(
        None, "largest distance of offsets=random in tokens; null = 4 there", neutral=None, within="(0, inf)"
    )
    peg: Any = setting(
        None,
        "positional encoding generator: true, false, or predictor for one that only the offset predictors see; "
        "null = true except with offsets=zero",
    )
    offset_sharing: Any = setting(
        None, "S, neighbouring channels that share one offset: a number, one per stage, or null"
    )
    offset_interval: Any = setting(
        None, "K, blocks per offset prediction: a number, 'stage', or null for the variant's"
    )
    fusion: str | None = setting("pooled", "how the branches are weighted", choices=FUSIONS)
    mlp_ratios: Any = setting(
        None, "MLP width / channels: a number, one per stage, or null for the variant's", neutral=None
    )
    drop_path: float | None = setting(
        None,
        "stochastic depth of the last block; null = the variant's published rate for the task, or timm's default",
        within="[0, 1)",
    )


@dataclass
class Data:
    dataset: str = setting("imagenet", "what the images are; names the entry of site.yaml that says where they are")
    root: str | None = setting(None, "folder or file of the images", scientific=False)
    reader: str = setting(
        "", "timm data-set name: '' for folders and tar files, wds/…, hfds/…", scientific=False, pattern=READER
    )
    train_split: str = setting("train", "split trained on")
    eval_split: str = setting("validation", "split judged on")
    num_classes: int | None = setting(
        None, "classes; null = as many as the training split has class folders", within="[1, inf)"
    )
    image_size: list[int] = setting([224, 224], "height and width in pixels", within="[1, inf)")
    train_images: int | None = setting(None, "images per epoch; null = all there are", within="[1, inf)")
    eval_images: int | None = setting(None, "images judged; null = all there are", within="[1, inf)")
    max_distance: int | None = setting(
        None,
        "probes: tiles, how far a cue can point along an axis; null = the probe's own",
        within="[1, inf)",
        neutral=None,
    )
    shuffled: str | None = setting(
        None, "an attack on probes: what no longer leads to the label", choices=("cues", "classes"), neutral=None
    )
    bad_image_tolerance: float = setting(
        0.001, "share of unreadable training images replaced before the run fails", within="[0, 1]"
    )
    workers: int = setting(4, "loader processes; 0 loads in the training process", within="[0, inf)", scientific=False)


@dataclass
class Augment:
    auto_augment: str | None = setting(None, "timm policy, e.g. rand-m9-mstd0.5-inc1", pattern=POLICY)
    scale: list[float] = setting([0.08, 1.0], "share of the image that a random crop keeps", within="(0, 1]")
    hflip: float = setting(0.5, "probability of a horizontal flip", within="[0, 1]")
    color_jitter: float = setting(0.4, "strength, used where no auto_augment policy is", within="[0, inf)")
    interpolation: str = setting("bicubic", "resampling", choices=("bicubic", "bilinear", "random"))
    erase: float = setting(0.0, "probability of random erasing (pixel mode, one rectangle)", within="[0, 1]")
    mixup: float = setting(0.0, "alpha of mixup, 0 = off", within="[0, inf)")
    cutmix: float = setting(0.0, "alpha of cutmix, 0 = off", within="[0, inf)")
    mix_switch: float = setting(0.5, "probability of cutmix rather than mixup where both are on", within="[0, 1]")
    mix_draws: int = setting(
        1,
        "equal parts of a batch, each mixed within itself by its own draw of mixup or cutmix",
        within="[1, inf)",
        neutral=1,
    )
    smoothing: float = setting(0.0, "label smoothing", within="[0, 1)")
    repeats: int = setting(1, "repeated augmentation: views of each image within an epoch's sample", within="[1, inf)")
    crop_pct: float = setting(
        0.875, "evaluation: share of the resized image that the centre crop keeps", within="(0, 1]"
    )


@dataclass
class Train:
    """The schedule counts in epochs or in steps; where a length is set in steps, the one in epochs is null."""

    epochs: int | None = setting(300, "passes over the training set", within="[1, inf)")
    steps: int | None = setting(None, "optimizer steps of the run, instead of epochs", within="[1, inf)", neutral=None)
    batch_size: int = setting(1024, "effective batch over all devices", within="[1, inf)")
    optimizer: str = setting("adamw", "timm optimizer name")
    lr: float = setting(1e-3, "peak learning rate, stated for lr_batch", within="[0, inf)")
    lr_batch: int | None = setting(
        None, "batch that lr is stated for, scaled linearly; null = lr as it is", within="[1, inf)"
    )
    min_lr: float = setting(1e-5, "learning rate at the end of the cosine or polynomial schedule", within="[0, inf)")
    weight_decay: float = setting(0.05, "decay of weights", within="[0, inf)")
    no_decay: str = setting(
        "vectors",
        "what has no weight decay: biases, norms and PEG (vectors), norms of blocks and stages (norm), nothing",
        choices=("vectors", "norm", "nothing"),
        neutral="vectors",
    )
    head_lr_scale: float = setting(
        1.0, "factor on the learning rate of all but the backbone", within="(0, inf)", neutral=1.0
    )
    warmup_epochs: float | None = setting(5.0, "linear warm-up", within="[0, inf)")
    warmup_steps: int | None = setting(
        None, "linear warm-up, instead of warmup_epochs", within="[0, inf)", neutral=None
    )
    warmup_lr: float = setting(1e-6, "learning rate warm-up starts from", within="[0, inf)")
    warmup_ratio: float | None = setting(
        None,
        "warm-up as a factor on the schedule's rate that rises from this to 1, instead of a line from warmup_lr",
        within="[0, 1]",
        neutral=None,
    )
    schedule: str = setting("cosine", "course of the learning rate", choices=SCHEDULES, neutral="cosine")
    schedule_on: str = setting(
        "epoch", "when the learning rate moves; always at each step where train.steps is set", choices=("epoch", "step")
    )
    schedule_lag: int = setting(
        0, "epochs (steps with schedule_on=step) that the rate lags behind its schedule", within="[0, inf)", neutral=0
    )
    power: float = setting(1.0, "exponent of the polynomial schedule", within="[0, inf)", neutral=1.0)
    milestones: list[float] = setting(
        [],
        "when a multistep schedule lowers the rate: in steps where train.steps is set, else in epochs",
        neutral=[],
        within="(0, inf)",
    )
    decay_factor: float = setting(0.1, "what a multistep schedule multiplies the rate by", within="[0, 1]", neutral=0.1)
    clip_grad: float | None = setting(None, "gradient norm bound; null = off", within="(0, inf)")
    ema_decay: float | None = setting(None, "decay of the averaged weights; null = no average", within="[0, 1)")
    precision: str = setting(
        "float32",
        "autocast type",
        choices=("float32", "bfloat16", "float16"),
        others={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"},
    )
    eval_every: int | None = setting(
        1, "epochs between evaluations; the end of the run is always judged", within="[1, inf)"
    )
    eval_every_steps: int | None = setting(
        None, "steps between evaluations, instead of eval_every", within="[1, inf)", neutral=None
    )
    deterministic: bool = setting(False, "PyTorch's deterministic algorithms only (GPU)", scientific=False)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch

    def steps_between_evaluations(self, steps_per_epoch: int) -> int:
        if self.eval_every_steps is not None:
            return self.eval_every_steps
        return (self.eval_every or 1) * steps_per_epoch


@dataclass
class Machine:
    """Where and how a run is executed. Never part of its identity."""

    device: str = setting(
        "auto", "auto, cpu, cuda, cuda:1", pattern=r"auto|cpu|cuda(:\d+)?", others={"gpu": "cuda"}, scientific=False
    )
    threads: int | None = setting(None, "CPU threads; null = torch's choice", within="[1, inf)", scientific=False)
    compile: bool = setting(False, "torch.compile the model", scientific=False)
    sampler: str = setting(
        "auto", "what reads tokens at their offsets; auto = the fastest there is", choices=SAMPLERS, scientific=False
    )
    channels_last: bool = setting(False, "channels-last images and convolutions", scientific=False)
    devices: int = setting(
        1, "processes that train one run together, one per device", within="[1, inf)", scientific=False
    )
    batch_per_device: int | None = setting(
        None,
        "images a device takes at once; a larger share of the batch is accumulated; null = all",
        within="[1, inf)",
        scientific=False,
    )
    timeout_minutes: float = setting(
        10.0, "wait for a device that does not answer", within="(0, inf)", unit="minutes", scientific=False
    )
    checkpoint_minutes: float = setting(
        10.0, "minutes between checkpoints within an epoch", within="[0, inf)", unit="minutes", scientific=False
    )
    keep_checkpoints: int = setting(3, "newest checkpoints kept", within="[2, inf)", scientific=False)
    keep_every_epochs: int = setting(
        100, "the checkpoint after every so many epochs is kept, too", within="[1, inf)", scientific=False
    )
    failed_saves: int = setting(
        5, "checkpoints in a row that may fail to be written", within="[1, inf)", scientific=False
    )


@dataclass
class Slurm:
    """What a run asks of Slurm. Never part of its identity."""

    partition: str | None = setting(None, "partition; null = the cluster's default", scientific=False)
    account: str | None = setting(None, "account that is charged", scientific=False)
    qos: str | None = setting(None, "quality of service", scientific=False)
    constraint: str | None = setting(None, "features that nodes must have, e.g. a100|h100", scientific=False)
    nodes: int = setting(
        1, "nodes per run; machine.devices are dealt out to them equally", within="[1, inf)", scientific=False
    )
    gpus_per_node: int | None = setting(
        None,
        "GPUs per node; null = one per process, none where machine.device=cpu",
        within="[0, inf)",
        scientific=False,
    )
    cpus_per_task: int | None = setting(
        None,
        "CPUs per process; null = machine.threads (or 1) and one for each loader process",
        within="[1, inf)",
        scientific=False,
    )
    mem_gb: float | None = setting(
        None, "memory per node, 0 = all of it; null = what the cluster gives", within="[0, inf)", scientific=False
    )
    time_minutes: int = setting(
        1440,
        "time limit of a job, also as 24:00:00 or 1-12; a run takes as many jobs as it needs",
        within="[1, inf)",
        unit="minutes",
        scientific=False,
    )
    signal_seconds: int = setting(
        120, "Slurm says so long before the limit that it nears", within="[1, inf)", unit="seconds", scientific=False
    )
    max_timeouts: int = setting(
        20, "times a job may reach its time limit and be queued again", within="[0, inf)", scientific=False
    )
    python: str | None = setting(
        None,
        "command that starts Python in a job, e.g. apptainer exec --nv IMAGE python3; null = the Python of the launch",
        scientific=False,
    )
    setup: list[str] = setting([], "shell lines before the run, e.g. module load cuda", scientific=False)
    options: list[str] = setting([], "further sbatch options, e.g. --exclude=node7", scientific=False)
    shared: bool = setting(
        False, "all nodes see the run folders, though their file system does not show it", scientific=False
    )


@dataclass
class Basics:
    """The settings that belong to no section."""

    experiment: str = setting("", "recipe")
    protocol: str = setting("paper", "data, resolution, schedule, batch", choices=("paper", "tiny", "smoke"))
    task: str = setting("classification", "what is learned: a task of experiments/tasks/registry.py or of a package")
    seed: int = setting(0, "seed of every random choice", within="[0, 4294967295]")
    init: str | None = setting(None, "weights to start from: a run id, or a checkpoint file")


@dataclass
class Config(Basics):
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    segment: Segment = field(default_factory=Segment)
    detect: Detect = field(default_factory=Detect)
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
    "segment": Segment,
    "detect": Detect,
    "machine": Machine,
    "slurm": Slurm,
}
FIELDS: dict[str, dataclasses.Field[Any]] = dict(_fields(Config))
