"""The fingerprint of the code that decides a run's numbers. Must not import torch.

It covers the modules of ``atm/`` and ``experiments/`` that compute, each in a normal form without comments, docstrings
and formatting that is the same for every Python from 3.10 on. Of ``experiments/tasks`` and ``experiments/data`` it
covers the modules that the run's own task imports, directly or through others, so that another task or data set can be
added. Modules of other packages that register a task or data set are covered, too, where a run uses them. The source of
a mixer of one's own, in a file or a package, is a part of the run's id instead (``experiments.own_mixer``).
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import ROOT
from experiments.folder.normal_form import normal_form
from experiments.own_mixer import refuse_other_version
from experiments.plugin import module_file, plugin_module
from experiments.tasks.registry import task_entry
from yaml_files import read_yaml

if TYPE_CHECKING:
    from experiments.schema import Config

ROOMS = ("atm", "experiments")
SOURCES = (".py", ".yaml", ".cpp")  # endings of source files
PER_TASK = ("experiments/tasks/", "experiments/data/")  # covered only where the run's task imports them

# Every source of ROOMS is named in COMPUTES or in EXEMPT; recipes are not, as each run holds its own in config.yaml.
COMPUTES = (
    "atm/backbone.py",
    "atm/block.py",
    "atm/mixer.py",
    "atm/mixers.py",
    "atm/mlp.py",
    "atm/neck.py",
    "atm/offsets.py",
    "atm/recompute.py",
    "atm/shortcuts.py",
    "atm/sampling/__init__.py",
    "atm/sampling/reference.py",
    "atm/token_mixers/attention.py",
    "atm/token_mixers/axial_mlp.py",
    "atm/token_mixers/convolution.py",
    "atm/token_mixers/deformable.py",
    "atm/variants.py",
    "atm/variants.yaml",
    "experiments/data/batch.py",
    "experiments/data/box_layout.py",
    "experiments/data/box_transforms.py",
    "experiments/data/boxes.py",
    "experiments/data/coco_file.py",
    "experiments/data/colour_distortion.py",
    "experiments/data/drawn.py",
    "experiments/data/images.py",
    "experiments/data/label_list.py",
    "experiments/data/labelled_boxes.py",
    "experiments/data/listing.py",
    "experiments/data/loading.py",
    "experiments/data/mask_layout.py",
    "experiments/data/mask_transforms.py",
    "experiments/data/masks.py",
    "experiments/data/matching.py",
    "experiments/data/modes.py",
    "experiments/data/order.py",
    "experiments/data/outlines.py",
    "experiments/data/probes.py",
    "experiments/data/replacement.py",
    "experiments/data/scene_boxes.py",
    "experiments/data/scene_masks.py",
    "experiments/data/scenes.py",
    "experiments/data/token_images.py",
    "experiments/folder/weights.py",
    "experiments/tasks/box_examples.py",
    "experiments/tasks/classification.py",
    "experiments/tasks/coco_evaluation.py",
    "experiments/tasks/detection_judge.py",
    "experiments/tasks/detection.py",
    "experiments/tasks/detectors/anchors.py",
    "experiments/tasks/detectors/assignment.py",
    "experiments/tasks/detectors/detections.py",
    "experiments/tasks/detectors/detector.py",
    "experiments/tasks/detectors/losses.py",
    "experiments/tasks/detectors/mask_targets.py",
    "experiments/tasks/detectors/options.py",
    "experiments/tasks/detectors/proposals.py",
    "experiments/tasks/detectors/region_networks.py",
    "experiments/tasks/detectors/region_pooling.py",
    "experiments/tasks/detectors/regions.py",
    "experiments/tasks/detectors/retinanet.py",
    "experiments/tasks/detectors/suppression.py",
    "experiments/tasks/detectors/targets.py",
    "experiments/tasks/heads/fcn.py",
    "experiments/tasks/heads/layers.py",
    "experiments/tasks/heads/pyramid_pooling.py",
    "experiments/tasks/heads/semantic_fpn.py",
    "experiments/tasks/heads/upernet.py",
    "experiments/tasks/judges.py",
    "experiments/tasks/leave_one_out.py",
    "experiments/tasks/mask_examples.py",
    "experiments/tasks/necks/detection_fpn.py",
    "experiments/tasks/necks/fpn.py",
    "experiments/tasks/network.py",
    "experiments/tasks/segmentation.py",
    "experiments/tasks/segmentation_judge.py",
    "experiments/tasks/segmenter.py",
    "experiments/tasks/token_labelling.py",
    "experiments/tasks/views.py",
    "experiments/training/batch_norm.py",
    "experiments/training/devices.py",
    "experiments/training/draws.py",
    "experiments/training/evaluation.py",
    "experiments/training/learner.py",
    "experiments/training/loop.py",
    "experiments/training/optimization.py",
    "experiments/training/schedules.py",
)
BACKEND = "a way to compute the formula of atm/sampling/reference.py; tests hold all of them to it within rounding"
SETTINGS = "a run's settings are frozen in its config.yaml and compared on resume"
FOLDER = "keeps files of a run; a checkpoint is read back bit by bit or not at all"
EXEMPT = {
    "atm/__init__.py": "imports",
    "atm/complexity.py": "counts parameters and FLOPs",
    "atm/reads.py": "shows where a model reads",
    "atm/released.py": "reads released checkpoints; a run's identity has the weights it starts from",
    "atm/sampling/backends.py": BACKEND,
    "atm/sampling/block_sizes.py": "sizes of parts that are computed at a time; none that changes a bit is kept",
    "atm/sampling/composed.py": BACKEND,
    "atm/sampling/eager.py": BACKEND,
    "atm/sampling/native.cpp": BACKEND,
    "atm/sampling/native.py": BACKEND,
    "atm/sampling/operator.py": BACKEND,
    "atm/sampling/patterns.py": BACKEND,
    "atm/sampling/triton_backend.py": BACKEND,
    "atm/sampling/triton_kernels.py": BACKEND,
    "atm/token_mixers/__init__.py": "empty",
    "experiments/__init__.py": "says where the checkout is",
    "experiments/__main__.py": "starts processes",
    "experiments/backbones.py": SETTINGS,
    "experiments/commands.py": "starts runs",
    "experiments/completion.py": SETTINGS,
    "experiments/config.py": SETTINGS,
    "experiments/dense_schema.py": SETTINGS,
    "experiments/detect_completion.py": SETTINGS,
    "experiments/equal_cost.py": SETTINGS,
    "experiments/identity.py": SETTINGS,
    "experiments/interrupts.py": "handles signals",
    "experiments/launch.py": "starts processes",
    "experiments/model_completion.py": SETTINGS,
    "experiments/model_costs.py": SETTINGS,
    "experiments/neck_completion.py": SETTINGS,
    "experiments/origin.py": "compares what a run rests on with what it began with",
    "experiments/own_mixer.py": SETTINGS,
    "experiments/paths.py": SETTINGS,
    "experiments/plugin.py": "finds sources",
    "experiments/schema.py": SETTINGS,
    "experiments/segment_completion.py": SETTINGS,
    "experiments/setting.py": SETTINGS,
    "experiments/data/__init__.py": "empty",
    "experiments/data/ade20k.yaml": "names classes",
    "experiments/data/damage.py": "words of messages",
    "experiments/data/layout.py": "checks that data are where the config says",
    "experiments/data/ledger.py": "counts unreadable images; which image replaces one is decided in data sets",
    "experiments/data/palette.py": "colours of pictures",
    "experiments/data/registry.py": "names data sets",
    "experiments/data/shards.py": "checks that splits share no shard",
    "experiments/folder/__init__.py": "empty",
    "experiments/folder/checkpoint.py": FOLDER,
    "experiments/folder/claim.py": FOLDER,
    "experiments/folder/fingerprint.py": FOLDER,
    "experiments/folder/metrics_log.py": FOLDER,
    "experiments/folder/normal_form.py": FOLDER,
    "experiments/folder/present_code.py": "compares fingerprints",
    "experiments/folder/parent.py": "finds the weights that a run starts from; its identity has the parent's",
    "experiments/folder/provenance.py": FOLDER,
    "experiments/folder/run_folder.py": FOLDER,
    "experiments/tasks/__init__.py": "interfaces",
    "experiments/tasks/detectors/__init__.py": "empty",
    "experiments/tasks/heads/__init__.py": "empty",
    "experiments/tasks/necks/__init__.py": "empty",
    "experiments/tasks/registry.py": "names tasks",
    "experiments/training/__init__.py": "empty",
    "experiments/training/outcome.py": "reports how a run ended",
    "experiments/training/replay.py": "compares steps that were trained again",
    "experiments/training/progress.py": "reports how far a run is",
    "experiments/training/state.py": "tests hold a run that was restored to the bits of one that was never interrupted",
    "experiments/training/summary.py": "writes results of a finished run",
}


def run_fingerprint(config: Config, root: Path = ROOT) -> str:
    """The code fingerprint for a run, which also covers a data set of another package that it uses.

    Computed once per process, also where sources are edited meanwhile. Raises ConfigError where its mixer is of a
    package that is not the one that the run was planned with.
    """
    refuse_other_version(config.model)
    return chosen_fingerprint(config.task, config.data.dataset, root)


def chosen_fingerprint(task: str, dataset: str, root: Path = ROOT) -> str:
    """The same of a run of which only the names of its task and data set are known."""
    return _together(_run_modules(task, dataset, root))


def run_modules(config: Config, root: Path = ROOT) -> dict[str, str]:
    """The sources that the code fingerprint of a run covers → 8 hexadecimal digits of each.

    Computed once per process, as ``run_fingerprint`` is.
    """
    return _run_modules(config.task, config.data.dataset, root)


@cache  # the runs of a sweep share it
def _run_modules(task: str, dataset: str, root: Path) -> dict[str, str]:
    plugin = plugin_module("atm.datasets", dataset)
    return _modules(task, root, [plugin] if plugin else [])


def code_fingerprint(task: str, root: Path = ROOT, plugins: Iterable[str] = ()) -> str:
    """16 hexadecimal digits; equal where the code computes the same numbers by the same operations.

    task: its name in the registry; root: a checkout or a copy of one; plugins: further modules, by import name.
    """
    return _together(_modules(task, root, plugins))


def _modules(task: str, root: Path, plugins: Iterable[str]) -> dict[str, str]:
    task_module = task_entry(task).module.partition(":")[0]
    files = {path: root / path for path in covered(task_module, root)}
    foreign = {name for name in (task_module, *plugins) if name.partition(".")[0] not in ROOMS}
    files |= {name: module_file(name) for name in sorted(foreign)}
    return {name: _digest(path) for name, path in files.items()}


def _together(modules: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(modules, sort_keys=True).encode()).hexdigest()[:16]


def covered(task_module: str, root: Path = ROOT) -> list[str]:
    """Paths below ``root`` of the sources that a run of a task computes with, sorted.

    A source that is on neither list counts as computing.
    """
    present = [path for path in sources(root) if path not in EXEMPT]
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in present}

    def imported(path: Path) -> list[str]:
        return [modules[name] for name in _imports(path) if name in modules]

    pending = [path for path in present if not path.startswith(PER_TASK)]
    pending += [modules[task_module]] if task_module in modules else imported(module_file(task_module))
    reached: set[str] = set()
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending += imported(root / path)
    return sorted(reached)


def sources(root: Path = ROOT) -> list[str]:
    """Every source of ROOMS but recipes, as a path below ``root``."""
    paths = (path for room in ROOMS for path in (root / room).rglob("*") if path.suffix in SOURCES)
    return sorted(path.relative_to(root).as_posix() for path in paths if "recipes" not in path.parts)


def _imports(path: Path) -> Iterator[str]:
    """Names of the modules that a Python source imports anywhere, and of what it imports from them."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _digest(path: Path) -> str:
    content = json.dumps(read_yaml(path), sort_keys=True) if path.suffix == ".yaml" else normal_form(path)
    return hashlib.sha256(content.encode()).hexdigest()[:8]
