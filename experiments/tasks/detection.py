"""Object detection and instance segmentation on any backbone, judged by COCO's AP (AAAI Tables 4 to 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from errors import ConfigError
from experiments.data.batch import unreadable
from experiments.data.box_transforms import MULTI_SCALE, BoxAugment, canvas_of
from experiments.data.boxes import Boxes, open_boxes
from experiments.data.drawn import normalisation, open_drawn
from experiments.data.labelled_boxes import Detections, LabelledBoxes
from experiments.data.mask_transforms import fitted, resize
from experiments.data.order import stream
from experiments.data.registry import is_drawn
from experiments.data.scene_boxes import DrawnBoxes, drawn_boxes
from experiments.dense_schema import DETECTOR_OPTIONS, WITH_MASKS
from experiments.schema import Config
from experiments.tasks import Task
from experiments.tasks.detection_judge import DetectionJudge
from experiments.tasks.detectors.detections import paste_masks
from experiments.tasks.detectors.detector import STRIDES, Detector, build_detector
from experiments.tasks.detectors.options import PUBLISHED, DetectorOptions
from experiments.tasks.detectors.targets import Targets
from experiments.tasks.network import dense_backbone


@dataclass(frozen=True)
class PlacedBoxes(LabelledBoxes):
    """A training batch that knows the places of its images in the whole batch, by way of ``targets``."""

    targets: Targets


class Detection(Task):
    """Batches are ``LabelledBoxes``.

    Raises ConfigError where a drawn data set has another number of classes than ``data.num_classes``.
    """

    def __init__(self, config: Config):
        self.config = config
        data = config.data
        if is_drawn(data.dataset) and (classes := len(self.eval_set.class_names)) != data.num_classes:
            raise ConfigError(f"data.num_classes={data.num_classes}: {data.dataset} with boxes have {classes} classes")

    @cached_property
    def train_set(self) -> Boxes | DrawnBoxes:  # type: ignore[override]
        return self._data(training=True)

    @cached_property
    def eval_set(self) -> Boxes | DrawnBoxes:  # type: ignore[override]
        return self._data(training=False)

    @property
    def with_masks(self) -> bool:
        return self.config.detect.head in WITH_MASKS

    @property
    def mixed_parts(self) -> int:
        """An image and its partner share the normaliser of their losses, as the two images of a GPU do elsewhere."""
        return 1 if self.config.detect.images_per_loss > 1 else 0

    def build_model(self) -> nn.Module:
        detect, classes = self.config.detect, self.config.data.num_classes
        assert classes is not None  # completed
        return build_detector(
            dense_backbone(self.config.model, STRIDES), detect.head, classes, detector_options(self.config)
        )

    def prepare(self, batch: LabelledBoxes, seed: int, places: NDArray[np.int64]) -> PlacedBoxes:  # type: ignore[override]
        """Adds the groups of images that share a normaliser, and a random generator for each image."""
        last = self.config.train.batch_size - 1
        groups = np.minimum(places, last - places) if self.mixed_parts else places
        generators = [
            torch.Generator().manual_seed(int(stream(seed, int(place), purpose="regions").integers(2**32)))
            for place in places
        ]
        device = batch.images.device
        targets = Targets(batch.boxes, batch.classes, batch.masks, torch.from_numpy(groups).to(device), generators)
        return PlacedBoxes(**{field.name: getattr(batch, field.name) for field in fields(batch)}, targets=targets)

    def loss(self, forward: Callable[..., Any], batch: PlacedBoxes) -> Tensor:
        """The sum of the detector's losses, each a mean over images."""
        losses: dict[str, Tensor] = forward(batch.images, batch.sizes, batch.targets)
        return torch.stack(list(losses.values())).sum()

    def predict(self, model: nn.Module, batch: LabelledBoxes) -> tuple[Detections, ...]:
        """What is found in each image, in px of the image.

        Images are tested one by one, at a padded size of their own: one that is padded to another's size would change
        what pooled fusion averages. Of a training batch, all networks are computed and nothing is found.
        """
        if isinstance(batch.images, Tensor):
            assert isinstance(model, Detector)
            model.compute(batch.images)
            return ()
        return tuple(self._found(model, image) for image in batch.images)

    def judge(self) -> DetectionJudge:
        return DetectionJudge(self.eval_set.class_names)

    def example(self) -> LabelledBoxes:
        sides = self.config.data.image_size
        height, width = canvas_of([(sides[0], sides[1])])
        box = torch.tensor([[width / 4, height / 4, width / 2, height / 2]])
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
        return LabelledBoxes(
            torch.zeros(2, 3, height, width),
            unreadable(()),
            torch.tensor([[height, width]] * 2),
            (box, box),
            (torch.zeros(1, dtype=torch.int64),) * 2,
            (mask, mask) if self.with_masks else (),
            [],
        )

    def _found(self, model: nn.Module, image: Tensor) -> Detections:
        """image: uint8 [3, h, w]."""
        height, width = image.shape[1:]
        short_and_long = self.config.detect.resize
        size = fitted((height, width), (short_and_long[0], short_and_long[1])) if short_and_long else (height, width)
        view = self._normalised(image if size == (height, width) else resize(image, size))
        below, right = (padded - side for padded, side in zip(canvas_of([size]), size))
        (found,) = model(pad(view, (0, right, 0, below))[None], torch.tensor([size], device=image.device))
        scale = found.boxes.new_tensor([width / size[1], height / size[0]] * 2)
        boxes = found.boxes * scale
        masks = None
        if found.probabilities is not None:
            masks = paste_masks(found.probabilities, boxes, (height, width))
        return Detections(boxes, found.scores, found.classes, masks)

    def _normalised(self, image: Tensor) -> Tensor:
        """uint8 [3, h, w] to float32."""
        mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in normalisation(self.config))
        return (image.float() / 255 - mean) / std

    def _data(self, training: bool) -> Boxes | DrawnBoxes:
        if is_drawn(self.config.data.dataset):
            return drawn_boxes(open_drawn(self.config, "train" if training else "eval"), self.with_masks)
        return open_boxes(self.config, training, augment_of(self.config) if training else None, self.with_masks)


def detector_options(config: Config) -> DetectorOptions:
    """The structure that the section ``detect`` asks for."""
    values = {option: getattr(config.detect, name) for name, option in DETECTOR_OPTIONS.items()}
    given = {option: value for option, value in values.items() if value is not None}  # null: of no part of the detector
    return replace(PUBLISHED[config.detect.head], **given)


def augment_of(config: Config) -> BoxAugment:
    """The augmentation of photographs that the section ``detect`` asks for."""
    detect = config.detect
    assert detect.resize and detect.short_sides and detect.hflip is not None  # completed
    return BoxAugment(
        short_sides=tuple(detect.short_sides),
        longest=detect.resize[1],
        first_sides=MULTI_SCALE.first_sides if detect.crop else (),
        hflip=detect.hflip,
    )
