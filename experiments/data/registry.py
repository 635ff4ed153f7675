"""The data sets that a config can name: whether they need a root, how it is checked, how pixels are shown. No torch.

A data set of another package joins by an entry point of group ``atm.datasets``: its name → ``package.module:ENTRY``, a
``DatasetEntry``. Any other name stands for images in class folders, archives or shards as timm reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from errors import ConfigError

if TYPE_CHECKING:
    from experiments.schema import Config

GROUP = "atm.datasets"


@dataclass(frozen=True)
class DatasetEntry:
    """check: ``package.module:function`` that takes a config, completes it where the data decide (``num_classes``), and
    raises DataError for a root that does not fit; None for data that need no root.

    pixels: ``package.module:function`` from normalised images [B, 3, H, W] back to uint8 [B, H, W, 3].
    fingerprint: ``package.module:function`` from a checked config to the data fingerprint that a run of it records,
    from a listing alone and without torch, or to None where the data must be opened; None for data drawn by code.
    check_judged: ``check`` of the split that is judged alone, for evaluations; None where ``check`` is as good.
    tasks: those of the suite that it has labels for; empty: all, as tasks of other packages may read any data set.
    """

    check: str | None
    pixels: str
    fingerprint: str | None = None
    check_judged: str | None = None
    tasks: tuple[str, ...] = ()


LABELLED_IMAGES = DatasetEntry(
    "experiments.data.layout:check_class_folders",
    "experiments.data.images:pixels",
    "experiments.data.layout:data_fingerprint",
    "experiments.data.layout:check_judged_folders",
    tasks=("classification",),
)
LABELLED_PIXELS = DatasetEntry(
    "experiments.data.mask_layout:check_masks",
    "experiments.data.images:pixels",
    "experiments.data.mask_layout:mask_fingerprint",
    "experiments.data.mask_layout:check_judged_masks",
    tasks=("segmentation",),
)
LABELLED_BOXES = DatasetEntry(
    "experiments.data.box_layout:check_boxes",
    "experiments.data.images:pixels",
    "experiments.data.box_layout:box_fingerprint",
    "experiments.data.box_layout:check_judged_boxes",
    tasks=("detection",),
)
DRAWN_FOR = ("token_labelling", "segmentation")
PROBE = DatasetEntry(None, "experiments.data.probes:pixels", tasks=DRAWN_FOR)
DATASETS: dict[str, DatasetEntry] = {
    "imagenet": LABELLED_IMAGES,
    "tiny_imagenet": LABELLED_IMAGES,
    "ade20k": LABELLED_PIXELS,
    "camvid": LABELLED_PIXELS,
    "masks": LABELLED_PIXELS,
    "coco": LABELLED_BOXES,
    "bccd": LABELLED_BOXES,
    "boxes": LABELLED_BOXES,
    "scenes": DatasetEntry(None, "experiments.data.scenes:pixels", tasks=(*DRAWN_FOR, "detection")),
    "search": PROBE,
    "pair": PROBE,
    "diagonal": PROBE,
    "match": PROBE,
}


def dataset_entry(name: str) -> DatasetEntry:
    """The entry of a data set. Raises ConfigError where the package that registers it cannot be loaded."""
    if name in DATASETS or name not in _installed():
        return DATASETS.get(name, LABELLED_IMAGES)
    entry = _load(_installed()[name], f"data set {name!r}")
    if not isinstance(entry, DatasetEntry):
        raise ConfigError(f"data set {name!r}: {_installed()[name]} is not a DatasetEntry")
    return entry


def needs_root(config: Config) -> bool:
    """Whether the run reads files of a data set, so that ``data.root`` must be set."""
    return dataset_entry(config.data.dataset).check is not None


def is_drawn(name: str) -> bool:
    """Whether a data set of the suite is drawn by code."""
    return name in DATASETS and DATASETS[name].check is None


def check_root(config: Config) -> None:
    """Refuses a data root that is missing or does not fit, and completes the config where the data decide.

    Raises DataError. Lists folders at most; reads no image.
    """
    if check := dataset_entry(config.data.dataset).check:
        _load(check, f"data set {config.data.dataset!r}")(config)


def check_judged(config: Config) -> None:
    """``check_root`` for an evaluation, of the split that is judged alone where the data set can tell."""
    entry = dataset_entry(config.data.dataset)
    if check := entry.check_judged or entry.check:
        _load(check, f"data set {config.data.dataset!r}")(config)


def data_fingerprint(config: Config) -> str | None:
    """The data fingerprint that a run of this config records; None where only the run can tell.

    Raises DataError for a root that does not fit.
    """
    check_root(config)
    listed = dataset_entry(config.data.dataset).fingerprint
    return _load(listed, f"data set {config.data.dataset!r}")(config) if listed else None


def pixels(dataset: str) -> Callable[..., Any]:
    """The function that turns normalised images of a data set, float [B, 3, H, W], into uint8 [B, H, W, 3]."""
    function: Callable[..., Any] = _load(dataset_entry(dataset).pixels, f"data set {dataset!r}")
    return function


def _load(reference: str, subject: str) -> Any:
    module, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{subject} cannot be loaded: {error}") from None


@cache
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}
