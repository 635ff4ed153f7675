"""What a finished run of segmentation or detection says of images of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from errors import ConfigError, DataError, RunFolderError
from experiments.config import SHORT, get, merge
from experiments.data.listing import SUFFIXES, in_order, printable
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config
from measurements.finished_run import finished
from run_format import WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from experiments.data.labelled_boxes import ImageTruth
    from experiments.tasks import Task

# a task → the settings that change how images are tested and not what was trained, by the beginning of their keys
TEST_SETTINGS = {
    "segmentation": ("segment.test_",),
    "detection": ("detect.score_threshold", "detect.detections", "detect.test_proposals"),
}
SHOWN = 0.3  # score from which on an object is drawn, unless detect.score_threshold is given


@dataclass(frozen=True)
class Segments:
    """path: of the image; image: uint8 [h, w, 3]; classes: int64 [h, w], the likeliest class of every pixel."""

    path: Path
    image: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """names: of the classes."""
        return {"classes": [{"name": names[number], "share": round(share, 4)} for number, share in self.shares()]}

    def sentence(self, names: Sequence[str]) -> str:
        return ", ".join(f"{names[number]} {share:.0f} %" for number, share in self.shares()[:4])

    def draw(self, pictures: Mapping[str, ModuleType], names: Sequence[str]) -> bytes:
        """A PNG. pictures: task → the module that draws for it."""
        from experiments.data.palette import palette

        colours = palette(len(names))
        picture: bytes = pictures["segmentation"].draw(self.image, self.classes, self.shares(), names, colours)
        return picture

    def shares(self) -> list[tuple[int, float]]:
        """Class and its share of the pixels in per cent, the largest first."""
        import numpy as np

        found, counts = np.unique(self.classes, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(found[at]), 100.0 * int(counts[at]) / self.classes.size) for at in order]


@dataclass(frozen=True)
class PredictedObjects:
    """The n objects found in an image, the best first.

    path: of the image; image: uint8 [h, w, 3]; boxes: float32 [n, 4], x1, y1, x2, y2 in px; scores: float32 [n];
    classes: int64 [n]; masks: bool [n, h, w] or None; shown: score from which on an object is drawn. Of an image whose
    objects are annotated, right: bool [n], and missed: boxes [m, 4] and classes [m] of those that were not found with
    such a score.
    """

    path: Path
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_] | None
    shown: float
    right: NDArray[np.bool_] | None = None
    missed: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """names: of the classes."""
        rows: list[dict[str, Any]] = []
        for place, (box, score, kind) in enumerate(
            zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist())
        ):
            rows.append({"name": names[kind], "score": round(score, 4), "box": [round(side, 2) for side in box]})
            if self.masks is not None:
                rows[-1]["pixels"] = int(self.masks[place].sum())
            if self.right is not None:
                rows[-1]["right"] = bool(self.right[place])
        known = {} if self.missed is None else {"not_found": [names[kind] for kind in self.missed[1].tolist()]}
        return {"objects": rows, **known}

    def sentence(self, names: Sequence[str]) -> str:
        kinds = Counter(self.classes[self.scores >= self.shown].tolist())
        counted = ", ".join(f"{count} {names[kind]}" for kind, count in kinds.most_common(4)) or "nothing"
        return f"{counted} with a score of {self.shown:g} or more"

    def draw(self, pictures: Mapping[str, ModuleType], names: Sequence[str]) -> bytes:
        """A PNG. pictures: task → the module that draws for it."""
        shown = self.scores >= self.shown
        picture: bytes = pictures["detection"].draw(
            self.image,
            self.boxes[shown],
            self.classes[shown],
            self.scores[shown],
            names,
            masks=None if self.masks is None else self.masks[shown],
            right=None if self.right is None else self.right[shown],
            missed=self.missed,
        )
        return picture


Prediction = Segments | PredictedObjects


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
    """Config and summary of a finished run, to be executed as ``settings`` say.

    Raises ConfigError, RunFolderError.
    """
    config = folder.config()
    if config.task not in TEST_SETTINGS:
        drawn = " and ".join(TEST_SETTINGS)
        raise RunFolderError(f"predict={folder.id}: a run of task={config.task}; predictions are drawn of {drawn}")
    summary = finished(folder, "predict")
    merge(settings)  # refuses unknown keys
    for key in settings:
        if FIELDS[(SHORT.get(key, key))].metadata["scientific"] and not key.startswith(TEST_SETTINGS[config.task]):
            valid = ", ".join(f"{each}…" if each.endswith("_") else each for each in TEST_SETTINGS[config.task])
            raise ConfigError(f"predict={folder.id}: {key} would make it another run (valid: machine.…, {valid})")
    return merge({key: get(config, key) for key in FIELDS}, settings), summary


def class_names(summary: Mapping[str, Any]) -> list[str]:
    """The names that a run was judged with, in the order of their numbers."""
    return [str(row["name"]) for row in summary["curves"]["classes"]]


def predict(folder: RunFolder, config: Config, files: list[Path], shown: float | None = None) -> Iterator[Prediction]:
    """What is seen in image after image. shown: score from which on an object is drawn, SHOWN where it is None.

    Raises ConfigError where the weights do not fit, DataError for an unreadable image.
    """
    import numpy as np
    import torch
    from PIL import Image

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
    truths = _annotated(task, files) if config.task == "detection" else {}
    for file in files:
        try:
            with Image.open(file) as opened:
                image = np.array(to_rgb(opened))
        except Exception as error:  # whatever a file system and decoders raise
            raise DataError(f"{printable(str(file))}: unreadable image ({str(error).splitlines()[0]})") from None
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(device)
        with torch.no_grad():
            if config.task == "segmentation":
                yield _segments(task, model, file, image, pixels)
            else:
                truth = truths.get(file.resolve())
                yield _predicted_objects(task, model, file, image, pixels, SHOWN if shown is None else shown, truth)


def _segments(task: Task, model: nn.Module, file: Path, image: NDArray[np.uint8], pixels: Tensor) -> Segments:
    from experiments.data.batch import unreadable
    from experiments.data.masks import LabelledMasks

    (classes,) = task.predict(model, LabelledMasks((pixels,), unreadable(()), ()))
    return Segments(file, image, classes.cpu().numpy())


def _predicted_objects(
    task: Task,
    model: nn.Module,
    file: Path,
    image: NDArray[np.uint8],
    pixels: Tensor,
    shown: float,
    truth: ImageTruth | None,
) -> PredictedObjects:
    import torch

    from experiments.data.batch import unreadable
    from experiments.data.labelled_boxes import LabelledBoxes
    from experiments.tasks.box_examples import corners, matches, widths_and_heights

    sizes = torch.tensor([pixels.shape[1:]])
    (found,) = task.predict(model, LabelledBoxes((pixels,), unreadable(()), sizes, (), (), (), []))
    boxes, scores, classes = (part.cpu().numpy() for part in (found.boxes, found.scores, found.classes))
    masks = None if found.masks is None else found.masks.cpu().numpy()
    if truth is None:
        return PredictedObjects(file, image, boxes, scores, classes, masks, shown)
    places = matches(truth, widths_and_heights(boxes), classes)
    missed = ~truth.crowd
    missed[places[(places >= 0) & (scores >= shown)]] = False
    lost = corners(truth.boxes[missed]), truth.classes[missed]
    return PredictedObjects(file, image, boxes, scores, classes, masks, shown, places >= 0, lost)


def _annotated(task: Task, files: Sequence[Path]) -> dict[Path, ImageTruth]:
    """The objects of those files that are images of the evaluation set of a run, if its data are still there."""
    from experiments.data.boxes import Boxes

    data = task.config.data
    root = Path(data.root).resolve() if data.root else None
    below = {file.resolve() for file in files if root and file.resolve().is_relative_to(root)}
    if not below:
        return {}
    judged = task.eval_set
    assert isinstance(judged, Boxes)
    folder = judged.listing.images.split.path.parent
    places = {(folder / judged.name(index)).resolve(): index for index in range(len(judged))}
    return {path: judged.truth(places[path]) for path in below if path in places}
