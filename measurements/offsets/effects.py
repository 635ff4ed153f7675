"""How far the metrics of a trained model fall under interventions on its offsets, over its evaluation set.

The results are one JSON file beside the other measurements of the run's offsets, which ``reports`` shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import IterableDataset

import atomic_file
from errors import ConfigError, RunFailed, unknown
from experiments.data.batch import Batch, Samples
from experiments.data.order import SampleKey, stream
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.provenance import checkout
from experiments.schema import Config
from experiments.tasks import Evaluation, Judge, Task
from experiments.tasks.registry import build_task, task_entry
from experiments.training.devices import Group, prepare
from experiments.training.evaluation import refuse_other_records
from experiments.training.progress import image_bar
from measurements.judging import batch_size, evaluator
from measurements.offsets.interventions import INTERVENTIONS, Impossible, averaged, replaced
from measurements.offsets.measure import limited
from measurements.offsets.model import build_whole, offset_layers
from measurements.offsets.source import NO_OFFSETS, OffsetRequest, OffsetSource
from results.run_folders.interventions import FILE, VERSION, read, text
from results.run_folders.measurement_file import MeasuredError
from results.statistics.images import half_width


@dataclass(frozen=True)
class InterventionRequest:
    """names: of INTERVENTIONS. images: how many are judged, None for all. layer: the only predictor whose offsets are
    replaced, None for all of them."""

    names: tuple[str, ...]
    images: int | None = None
    layer: str | None = None

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> InterventionRequest | None:
        """Removes the keys of a request from the settings of a command line; None without one. Raises ConfigError."""
        chosen = settings.pop("interventions", False)
        if chosen is False:
            return None
        if "query" in settings:
            raise ConfigError("query= chooses reads to draw, and interventions= draws none")
        images_given = "images" in settings
        drawn = OffsetRequest.taken_from(settings)
        names = list(INTERVENTIONS) if chosen is True else chosen if isinstance(chosen, list) else [chosen]
        for name in names:
            if name not in INTERVENTIONS:
                raise ConfigError(f"{unknown('intervention', str(name), INTERVENTIONS)}; interventions=true takes all")
        if not names:
            raise ConfigError(f"interventions=[]: name some of {', '.join(INTERVENTIONS)}, or give true for all")
        ordered = tuple(name for name in INTERVENTIONS if name in names)
        return cls(ordered, drawn.images if images_given else None, drawn.layer)

    def layer_of(self, layers: list[str]) -> str | None:
        return None if self.layer is None else OffsetRequest(layer=self.layer).layer_of(layers)


def intervene(source: OffsetSource, request: InterventionRequest, fresh: bool = False) -> Path:
    """Judges a model with its own offsets and under each intervention; returns the file of the results.

    Results of the same weights, images and layer are reused. Raises ConfigError if the model predicts no offsets or
    the weights do not fit it, RunFailed for an image that cannot be read.
    """
    config = deepcopy(source.config)
    if request.images is not None:
        config = limited(config, request.images)
    device = prepare(config, Group())
    task = build_task(config)
    model = build_whole(source, task).to(device)
    if config.machine.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    every = offset_layers(model)
    if not every:
        raise ConfigError(f"{source.name}: {NO_OFFSETS}")
    layer = request.layer_of(list(every))
    path = source.out / (f"interventions-{layer}.json" if layer else FILE)
    key = {
        "version": VERSION,
        **source.key(images=request.images, layer=layer),
        **{name: getattr(config, name) for name in ("seed", "task")},
        "precision": config.train.precision,
    }
    earlier = {} if fresh else _earlier(path, key)
    if set(request.names) <= earlier.keys():
        return path
    names = [name for name in INTERVENTIONS if name in {*request.names, *earlier}]
    chosen = every if layer is None else {layer: every[layer]}
    judging = Judging(config, task, model, device)
    with image_bar(source.name, (len(names) + 1) * len(task.eval_set)) as judging.advance:
        with averaged(chosen) as means:
            undisturbed = judging.evaluate()
        effects, impossible = {}, {}
        for name in names:
            intervention = INTERVENTIONS[name]
            try:
                with replaced(chosen, intervention.replace, config.seed, means):
                    disturbed = judging.evaluate(intervention.random_order)
            except Impossible as error:
                impossible[name] = f"{intervention.title}: {error}"
                continue
            effects[name] = {"title": intervention.title, **_effect(disturbed, undisturbed)}
    entry, summary = task_entry(config.task), source.metrics if request.images is None else {}
    about = {
        "name": source.name,
        "key": key,
        "task": config.task,
        "metric": {
            "name": entry.metric,
            "label": entry.label_of(config),
            "unit": entry.unit,
            "decimals": entry.decimals,
        },
        "images": len(task.eval_set),
        "batch_size": judging.batch_size,
        "dataset": config.data.dataset,
        "data_fingerprint": task.eval_set.fingerprint(),
        "experiment": config.experiment,
        "protocol": config.protocol,
        "layers": list(chosen),
        "device": str(device),
        "undisturbed": undisturbed.metrics,
        # what the run itself found, where that is something else
        "otherwise": {n: summary[n] for n, value in undisturbed.metrics.items() if summary.get(n, value) != value},
        "interventions": effects,
        "impossible": impossible,
        "weights": source.weights.name,
        "weights_sha256": source.sha256,
        "trained": {kind: source.provenance.get(kind, "") for kind in ("code_fingerprint", "data_fingerprint")},
        "trained_commit": source.provenance.get("commit"),
        "code_fingerprint": run_fingerprint(config),
        "commit": checkout()["commit"],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return atomic_file.write(path, text(about))


def intervene_all(
    sources: Mapping[str, OffsetSource | str], request: InterventionRequest, fresh: bool = False
) -> dict[str, Path | str]:
    """The file of each source's results; a reason given as text instead of a source is passed on."""
    return {
        name: intervene(source, request, fresh) if isinstance(source, OffsetSource) else source
        for name, source in sources.items()
    }


class Judging:
    """Judges one model again and again, as training does at the end of a run: task, batches, precision."""

    def __init__(self, config: Config, task: Task, model: nn.Module, device: torch.device) -> None:
        self.config, self.task, self.model, self.device = config, task, model, device
        self.advance: Any = lambda images: None
        self.batch_size = batch_size(config)

    def evaluate(self, random_order: bool = False) -> Evaluation:
        """Judges all images; records are in the order of the evaluation set, also where ``random_order`` is not.

        A streamed data set has no random access, and keeps its order.
        """
        config, samples, order = self.config, self.task.eval_set, None
        if random_order and not isinstance(samples, IterableDataset):
            order = stream(config.seed, purpose="order of images").permutation(len(samples))
            samples = Reordered(samples, order)
        judges: dict[str, Judge] = {}
        judged = 0
        with evaluator(config, self.task, self.device, samples) as judging:
            for images in judging.judge({"eval": self.model}, judges):
                self.advance(images)
                judged += images
        if judged != len(samples):
            raise RunFailed(f"{judged} images were judged, the evaluation set has {len(samples)}")
        evaluation = judges["eval"].evaluation()
        refuse_other_records(evaluation, judged)
        if order is not None:
            back = np.argsort(order)
            evaluation.records = {name: record.rearranged(back) for name, record in evaluation.records.items()}
        return evaluation


class Reordered:
    """A data set whose samples are passed in another order. order: [N], the index of each place."""

    def __init__(self, samples: Samples, order: np.ndarray[Any, Any]) -> None:
        self.samples, self.order = samples, order

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> Any:
        return self.samples[key._replace(index=int(self.order[key.index]))]

    def collate(self, samples: Sequence[Any]) -> Batch:
        return self.samples.collate(samples)

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def problem(self, index: int) -> str:
        return self.samples.problem(index)

    def fingerprint(self) -> str:
        return self.samples.fingerprint()


def _effect(disturbed: Evaluation, undisturbed: Evaluation) -> dict[str, Any]:
    """Metrics, their differences to those of the undisturbed model, and intervals over images where there are records.

    The interval is that of a paired t-test over images, for this one model; there is none where no image differs.
    """
    before = undisturbed.metrics
    differences = {name: value - before[name] for name, value in disturbed.metrics.items() if name in before}
    intervals: dict[str, list[float]] = {}
    for name in differences.keys() & disturbed.records.keys() & undisturbed.records.keys():
        by_image = disturbed.records[name].contributions() - undisturbed.records[name].contributions()
        if half := half_width(by_image):
            intervals[name] = [differences[name] - half, differences[name] + half]
    return {"metrics": disturbed.metrics, "differences": differences, "intervals": intervals}


def _earlier(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """The interventions of an existing file with the same ``key``."""
    try:
        about = read(path)
    except MeasuredError:
        return {}
    return about["interventions"] | about["impossible"] if about["key"] == key else {}
