"""A complete small task that is unlike classification: unequal images, a loss inside the model, two test scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data.batch import ImageBatch, Samples, unreadable
from experiments.data.order import stream
from experiments.data.registry import DatasetEntry
from experiments.tasks import Evaluation, Judge, Task
from experiments.tasks.network import dense_backbone
from experiments.tasks.registry import TaskEntry
from experiments.training.optimization import decay_groups
from results.records import ImageRecord

DATASET = DatasetEntry(check=None, pixels="experiments.data.scenes:pixels")
TASK = TaskEntry("tests.experiments.box_counting:BoxCounting", "within_one", "Counts off by at most one")


class Boxes(Samples):
    """Grey images of 64 to 128 px a side with up to eight bright boxes, whose number is asked for."""

    def __init__(self, seed: int, length: int, split: int):
        self.seed, self.length, self.split, self.read = seed, length, split, []

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        random = stream(self.seed, key.epoch, key.index, self.split, purpose="boxes")
        height, width = (32 * int(side) for side in random.integers(2, 5, 2))
        image, count = torch.full((3, height, width), -1.0), int(random.integers(0, 9))
        for _ in range(count):
            top, left = int(random.integers(0, height - 12)), int(random.integers(0, width - 12))
            image[:, top : top + 12, left : left + 12] = 1.0
        return image, float(count)

    def collate(self, samples):
        images, counts = zip(*samples)
        return Counted(images, unreadable(()), torch.tensor(counts))

    def name(self, index):
        return f"boxes {index}"

    def fingerprint(self):
        return f"boxes-{self.split}-{self.length}"


@dataclass(frozen=True)
class Counted(ImageBatch):
    counts: Tensor


class Counter(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.feature_info.channels()[0], 1)

    def forward(self, images, counts=None):
        maps = [self.backbone(image[None])[0].mean((2, 3)) for image in images]
        numbers = self.head(torch.cat(maps))[:, 0]
        return numbers if counts is None else F.smooth_l1_loss(numbers, counts)


class BoxCounting(Task):
    def __init__(self, config):
        self.config = config
        self.train_set = Boxes(config.seed, config.data.train_images, 1)
        self.eval_set = Boxes(7, config.data.eval_images, 2)

    def build_model(self):
        return Counter(dense_backbone(self.config.model, (16,)))

    def parameter_groups(self, model):
        head = {"params": list(model.head.parameters()), "weight_decay": 0.0, "lr_scale": 10.0}
        return [*decay_groups(model.backbone, self.config.train.weight_decay), head]

    def loss(self, forward, batch):
        return forward(batch.images, batch.counts)

    def predict(self, model, batch):
        doubled = [F.interpolate(image[None], scale_factor=2.0, mode="bilinear")[0] for image in batch.images]
        return (model(batch.images) + model(doubled)) / 2

    def judge(self):
        return WithinOne()

    def example(self):
        return self.train_set.collate([(torch.zeros(3, 64, 64), 0.0), (torch.zeros(3, 64, 96), 0.0)])


class WithinOne(Judge):
    def __init__(self):
        self.errors = []

    def add(self, prediction, batch):
        self.errors += (prediction - batch.counts).abs().tolist()

    def merge(self, other):
        self.errors += other.errors

    def evaluation(self):
        errors = torch.tensor(self.errors)
        record = ImageRecord.of((errors <= 1).numpy())
        return Evaluation({"within_one": record.value(), "error": float(errors.mean())}, records={"within_one": record})
