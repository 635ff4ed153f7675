"""The model card of an exported run: Markdown that begins with what the Hub reads. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from experiments.backbones import is_timm
from experiments.config import scientific
from experiments.folder.run_folder import RunFolder
from experiments.identity import origin
from experiments.schema import MIXERS, Config
from experiments.tasks.registry import task_entry
from results.records import read_records
from results.run_folders.summary_file import notes
from results.statistics.images import half_width
from run_format import RECORDS

LICENCE = "mit"  # of this project's code and of what it writes
PIPELINES = {"classification": "image-classification"}  # task → what the Hub calls it; others are feature extractors
KINDS = {"ema": "averages over the training", "raw": "those that the optimizer moved"}


@dataclass(frozen=True)
class JudgedValue:
    """metric: its name without the kind of weights; half: of its 95 % interval over images, None where there is none;
    images: how many it was judged on, None where no record says so."""

    metric: str
    value: float
    half: float | None
    images: int | None


@dataclass(frozen=True)
class ExportedRun:
    """weights: "ema" or "raw"; architecture: timm's name; untrained: weights of the folder that no training moved;
    mean, std: of the channels of a pixel in 0 … 1."""

    id: str
    config: Config
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights: str
    values: Sequence[JudgedValue]
    architecture: str
    untrained: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def dense(self) -> bool:
        return self.config.task != "classification"


def values_of(folder: RunFolder, prefix: str) -> list[JudgedValue]:
    """What a run found at its end with the weights whose metrics begin with ``prefix``."""
    records = read_records(folder.path / RECORDS) if (folder.path / RECORDS).is_file() else {}
    values = []
    for name, value in folder.finished()["metrics"].items():
        kind, _, metric = name.partition("/")
        if kind == prefix:
            by_image = records[name].contributions() if name in records else None
            half = None if by_image is None else half_width(by_image)
            values.append(JudgedValue(metric, value, half, None if by_image is None else len(by_image)))
    return values


def model_card(run: ExportedRun) -> str:
    blocks = [_front_matter(run), f"# {run.id}", _what_it_is(run), *_results(run), *_loading(run), *_origin(run)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _front_matter(run: ExportedRun) -> str:
    config = run.config
    task = {"type": PIPELINES.get(config.task, config.task)}
    data = {"type": config.data.dataset, "name": config.data.dataset, "split": config.data.eval_split}
    found = [{"type": value.metric, "name": value.metric, "value": value.value} for value in run.values]
    entries = {
        "library_name": "timm",
        "pipeline_tag": PIPELINES.get(config.task, "image-feature-extraction"),
        "license": LICENCE,
        "tags": ["timm", *([] if is_timm(config.model.name) else ["atm"]), config.task],
        "model-index": [{"name": run.id, "results": [{"task": task, "dataset": data, "metrics": found}]}],
    }
    return f"---\n{yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)}---"


def _what_it_is(run: ExportedRun) -> str:
    config, train = run.config, run.config.train
    length = f"{train.steps} steps" if train.steps is not None else f"{train.epochs} epochs"
    size = "×".join(map(str, config.data.image_size))
    normalisation = (", ".join(f"{number:g}" for number in numbers) for numbers in (run.mean, run.std))
    sentences = [
        f"`{run.architecture}`, trained for {length} on {config.data.dataset} at {size} px "
        f"(task {config.task}, recipe {config.experiment}, protocol {config.protocol}, seed {config.seed}).",
        f"The weights are {KINDS[run.weights]}.",
        "Pixels in 0 … 1 were normalised with mean {} and deviation {}.".format(*normalisation),
    ]
    if run.dense:
        sentences.append(
            "**This is the backbone alone:** the four maps of ATMNet with a norm on each, without the neck and the "
            "head that the run trained with it."
        )
    if run.untrained:
        sentences.append(f"No training moved these, whose maps the head did not read: {', '.join(run.untrained)}.")
    rows = [f"| {key} | {value} |" for key, value in vars(config.model).items() if value is not None]
    table = "\n".join(["| Arm | |", "|---|---|", *rows])
    return "\n".join(sentences) + "\n\n" + table


def _results(run: ExportedRun) -> list[str]:
    config = run.config
    entry = task_entry(config.task)
    whole = " They are of the whole model, with its neck and head." if run.dense else ""
    images = next((value.images for value in run.values if value.images is not None), None)
    n = "an unrecorded number of" if images is None else f"n = {images:,}"
    about = (
        f"Judged once, at the end of training, on {n} images of the {config.data.eval_split} split of "
        f"{config.data.dataset}.{whole} Intervals are 95 % over images, for this one training (one seed)."
    )
    rows = []
    for value in run.values:
        name = f"{entry.label_of(config)} ({entry.unit})" if value.metric == entry.metric else value.metric
        decimals = entry.decimals if value.metric == entry.metric else 4
        interval = "" if value.half is None else f" ± {value.half:.{decimals}f}"
        rows.append(f"| {name} | {value.value:.{decimals}f}{interval} |")
    remarks = [f"- {note}" for note in notes(run.summary)]
    return ["## Results", about, "\n".join(["| Metric | Value |", "|---|---:|", *rows]), "\n".join(remarks)]


def _loading(run: ExportedRun) -> list[str]:
    mixer = run.config.model.mixer
    needs = [] if is_timm(run.config.model.name) else ["import atm  # registers ATMNet: pip install . in its checkout"]
    features = ", features_only=True" if run.dense else ""
    result = (
        "maps = model(images)  # [B, C, H, W] at strides 4, 8, 16 and 32" if run.dense else "logits = model(images)"
    )
    lines = [
        "import timm",
        *needs,
        "",
        f'model = timm.create_model("local-dir:FOLDER", pretrained=True{features}).eval()  # or "hf-hub:USER/NAME"',
        *([] if run.dense else ["data = timm.data.resolve_model_data_config(model)"]),
        *([] if run.dense else ["images = timm.data.create_transform(**data)(image)[None]  # of a PIL image"]),
        result,
    ]
    other = f"The mixer {mixer} is of another package, which must be installed." if mixer not in (None, *MIXERS) else ""
    return ["## How to load", "```python\n" + "\n".join(lines) + "\n```", other]


def _origin(run: ExportedRun) -> list[str]:
    about, config = run.provenance, run.config
    commit = about.get("commit") or "unknown"
    changed = {True: ", with uncommitted changes", None: ", and whether it was changed is unknown"}
    packages = ", ".join(f"{name} {version}" for name, version in (about.get("packages") or {}).items() if version)
    rows = {
        "run": run.id,
        "commit": f"{commit}{changed.get(about.get('dirty'), '')}",
        "code fingerprint": about.get("code_fingerprint", "unknown"),
        "data fingerprint": about.get("data_fingerprint", "unknown"),
        "started from": origin(config.init) if config.init else "no weights",
        "packages": packages,
        "finished": run.summary.get("finished"),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
    settings = {key: value for key, value in scientific(config).items() if key != "init"}
    listed = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000)
    return [
        "## Where it comes from",
        table,
        f"<details><summary>All settings that decide the numbers</summary>\n\n```yaml\n{listed}```\n\n</details>",
        "## Licence",
        "MIT, as the code that trained it. The images it was trained on have terms of their own.",
    ]
