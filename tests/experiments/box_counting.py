"""A complete small task that is unlike classification: unequal images, a loss inside the model, two test scales."""

import torch
from torch import nn
from torch.nn import functional as F

from experiments.data.batch import Samples, unreadable
from experiments.data.images import LabelledImages
from experiments.data.order import stream
from experiments.data.registry import DatasetEntry
from experiments.tasks import Task
from experiments.tasks.judges import ImageJudge
from experiments.tasks.network import dense_backbone
from experiments.tasks.registry import TaskEntry

DATASET = DatasetEntry(check=None, pixels="experiments.data.scenes:pixels")
TASK = TaskEntry("tests.experiments.box_counting:BoxCounting", "within_one", "Counts off by at most one")


class Boxes(Samples):
    """Grey images of 64 to 128 px a side with up to eight bright boxes, whose number is the class."""

    def __init__(self, seed, length, split):
        self.seed, self.length, self.split = seed, length, split

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        random = stream(self.seed, key.epoch, key.index, self.split, purpose="boxes")
        image = torch.full((3, *(32 * random.integers(2, 5, 2))), -1.0)
        for top, left in (corners := random.integers(0, 52, (random.integers(9), 2))):
            image[:, top : top + 12, left : left + 12] = 1.0
        return image, len(corners)

    def collate(self, samples):
        images, counts = zip(*samples)
        return LabelledImages(images, unreadable(()), torch.tensor(counts))

    def name(self, index):
        return f"boxes {index}"

    def fingerprint(self):
        return f"boxes-{self.split}-{self.length}"


class Counter(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.feature_info.channels()[0], 1)

    def forward(self, images, counts=None):
        maps = [self.backbone(image[None])[0].mean((2, 3)) for image in images]
        numbers = self.head(torch.cat(maps))[:, 0]
        return numbers if counts is None else F.smooth_l1_loss(numbers, counts.float())


class WithinOne(ImageJudge):
    def measure(self, prediction, batch):
        errors = (prediction - batch.classes).abs()
        return {"within_one": errors <= 1, "error": errors}


class BoxCounting(Task):
    judge = WithinOne

    def __init__(self, config):
        self.config = config
        self.train_set = Boxes(config.seed, config.data.train_images, 1)
        self.eval_set = Boxes(7, config.data.eval_images, 2)

    def build_model(self):
        return Counter(dense_backbone(self.config.model, (16,)))

    def loss(self, forward, batch):
        return forward(batch.images, batch.classes)

    def predict(self, model, batch):
        doubled = [F.interpolate(image[None], scale_factor=2.0, mode="bilinear")[0] for image in batch.images]
        return (model(batch.images) + model(doubled)) / 2

    def example(self):
        return self.train_set.collate([(torch.zeros(3, 64, 64), 0), (torch.zeros(3, 64, 96), 0)])
