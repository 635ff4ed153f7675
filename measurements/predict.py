"""What a finished run of segmentation says of images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ConfigError, DataError, RunFolderError
from experiments.config import SHORT, get, merge
from experiments.data.listing import SUFFIXES, in_order, printable
from experiments.folder.parent import why_unfinished
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config
from run_format import WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASK = "segmentation"


@dataclass(frozen=True)
class Segments:
    """path: of the image; image: uint8 [h, w, 3]; classes: int64 [h, w], the likeliest class of every pixel."""

    path: Path
    image: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def shares(self) -> list[tuple[int, float]]:
        """Class and its share of the pixels in per cent, the largest first."""
        import numpy as np

        found, counts = np.unique(self.classes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(found[at]), 100.0 * int(counts[at]) / self.classes.size) for at in order]


def image_files(given: Any) -> list[Path]:
    """The image that ``images=`` names, or those in the folder that it names, in order of their names.

    Raises ConfigError, DataError.
    """
    if not given:
        raise ConfigError("predict= needs images=PATH, an image or a folder of images")
    path = Path(str(given)).expanduser()
    if not path.exists():
        raise DataError(f"images={given}: no such file or folder")
    if not path.is_dir():
        return [path]
    names = [entry.name for entry in path.iterdir() if entry.name.lower().endswith(SUFFIXES)]
    files = [path / name for name in in_order([name for name in names if not name.startswith(".")])]
    if not files:
        raise DataError(f"images={given}: no images ({', '.join(SUFFIXES)}) in this folder")
    return files


def finished_run(folder: RunFolder, settings: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Config and summary of a finished run of segmentation, to be executed as ``settings`` say.

    Raises ConfigError, RunFolderError.
    """
    config = folder.config()
    if config.task != TASK:
        raise RunFolderError(f"predict={folder.id}: a run of task={config.task}; predictions are drawn of {TASK}")
    summary = folder.finished()
    if not summary:
        raise RunFolderError(f"predict={folder.id}: {why_unfinished(folder)}")
    if not (folder.path / WEIGHTS).is_file():
        raise RunFolderError(f"predict={folder.id}: the run is done, but its {WEIGHTS} is missing")
    merge(settings)  # refuses unknown keys
    for key in settings:
        if FIELDS[(SHORT.get(key, key))].metadata["scientific"] and not key.startswith("segment.test_"):
            raise ConfigError(
                f"predict={folder.id}: {key} would make it another run (valid: machine.…, segment.test_…)"
            )
    return merge({key: get(config, key) for key in FIELDS}, settings), summary


def class_names(summary: Mapping[str, Any]) -> list[str]:
    """The names that a run was judged with, in the order of their numbers."""
    return [str(row["name"]) for row in summary["curves"]["classes"]]


def predict(folder: RunFolder, config: Config, files: list[Path]) -> Iterator[Segments]:
    """Segments image by image. Raises ConfigError where the weights do not fit, DataError for an unreadable image."""
    import numpy as np
    import torch
    from PIL import Image

    from experiments.data.batch import unreadable
    from experiments.data.masks import LabelledMasks
    from experiments.data.modes import to_rgb
    from experiments.folder import weights
    from experiments.tasks.registry import build_task
    from experiments.training.devices import Group, prepare

    device = prepare(config, Group())
    task = build_task(config)
    model = task.build_model()
    if note := weights.load_backbone(model, weights.read(folder.path / WEIGHTS), folder.id).note(folder.id):
        raise ConfigError(f"{note}: its model has changed")
    model.to(device).eval()
    for file in files:
        try:
            with Image.open(file) as opened:
                image = np.array(to_rgb(opened))
        except Exception as error:  # whatever a file system and decoders raise
            raise DataError(f"{printable(str(file))}: unreadable image ({str(error).splitlines()[0]})") from None
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(device)
        with torch.no_grad():
            (classes,) = task.predict(model, LabelledMasks((pixels,), unreadable(()), ()))
        yield Segments(file, image, classes.cpu().numpy())
