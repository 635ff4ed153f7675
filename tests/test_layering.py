"""Who may import whom, which modules never load torch, and that a class name has one meaning."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import _load
from run import COMMANDS, OPTIONS

ROOT = Path(__file__).resolve().parent.parent

# A room or module imports from its own room and from rows below its own, never from beside it or above it.
ORDER = (
    ("run",),
    ("command_line",),
    ("doctor", "benchmarks"),
    ("sweeps",),
    ("reports",),
    ("measurements",),
    ("experiments",),
    ("results",),
    ("atm",),
    ("ask_program", "atomic_file", "output", "pasted_command", "run_format", "yaml_files"),
    ("untrusted_files",),
    ("errors",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# Stricter than the order: the model is a separate package, and rooms that read results need nothing that trains.
NEVER = {
    "atm": set(RANK) - {"atm"},
    "run_format": set(RANK),
    "results": {"atm"},
    "reports": {"measurements", "experiments", "atm"},
    "run": set(RANK) - {"command_line", "errors"},  # commands are named in its table and loaded when they are called
}

# The modules that may load torch when they are imported; all others must not. A name ending in a dot is a package.
WITH_TORCH = (
    "atm.",
    "benchmarks.",
    "experiments.training.",
    "experiments.data.batch",
    "experiments.data.box_transforms",
    "experiments.data.boxes",
    "experiments.data.drawn",
    "experiments.data.colour_distortion",
    "experiments.data.images",
    "experiments.data.labelled_boxes",
    "experiments.data.ledger",
    "experiments.data.loading",
    "experiments.data.mask_transforms",
    "experiments.data.masks",
    "experiments.data.matching",
    "experiments.data.order",
    "experiments.data.probes",
    "experiments.data.replacement",
    "experiments.data.scene_boxes",
    "experiments.data.scene_masks",
    "experiments.data.scenes",
    "experiments.data.token_images",
    "experiments.folder.checkpoint",
    "experiments.folder.weights",
    "experiments.tasks.box_examples",
    "experiments.tasks.classification",
    "experiments.tasks.detection_judge",
    "experiments.tasks.detection",
    "experiments.tasks.detectors.anchors",
    "experiments.tasks.detectors.assignment",
    "experiments.tasks.detectors.detections",
    "experiments.tasks.detectors.detector",
    "experiments.tasks.detectors.losses",
    "experiments.tasks.detectors.mask_targets",
    "experiments.tasks.detectors.proposals",
    "experiments.tasks.detectors.region_networks",
    "experiments.tasks.detectors.region_pooling",
    "experiments.tasks.detectors.regions",
    "experiments.tasks.detectors.retinanet",
    "experiments.tasks.detectors.suppression",
    "experiments.tasks.detectors.targets",
    "experiments.tasks.heads.fcn",
    "experiments.tasks.heads.layers",
    "experiments.tasks.heads.pyramid_pooling",
    "experiments.tasks.heads.semantic_fpn",
    "experiments.tasks.heads.upernet",
    "experiments.tasks.judges",
    "experiments.tasks.mask_examples",
    "experiments.tasks.necks.detection_fpn",
    "experiments.tasks.necks.fpn",
    "experiments.tasks.network",
    "experiments.tasks.segmentation_judge",
    "experiments.tasks.segmenter",
    "experiments.tasks.segmentation",
    "experiments.tasks.token_labelling",
    "experiments.tasks.views",
    "measurements.complexity",
    "measurements.evaluate",
    "measurements.export.hub",
    "measurements.judged_weights",
    "measurements.judging",
    "measurements.offsets.effects",
    "measurements.offsets.interventions",
    "measurements.offsets.measure",
    "measurements.offsets.model",
    "measurements.offsets.statistics",
    "measurements.receptive_field.measure",
)
TORCH = {"torch", "torchvision", "timm"}
# Modules that only read results do not even load these when they are imported, but only when they are called.
HEAVY = TORCH | {"pandas", "numpy", "scipy", "matplotlib", "seaborn", "rich", "omegaconf"}
LIGHT_ROOMS = (
    "run",
    "command_line",
    "results",
    "reports",
    "ask_program",
    "atomic_file",
    "output",
    "pasted_command",
    "run_format",
    "untrusted_files",
    "yaml_files",
    "errors",
)


def modules() -> dict[str, Path]:
    """Every module of the checkout but the tests, by its dotted name."""
    paths = [path for room in RANK for path in [*(ROOT / room).rglob("*.py"), ROOT / f"{room}.py"] if path.is_file()]
    paths = [path for path in paths if not path.is_relative_to(ROOT / "results" / "runs")]  # frozen copies of the code
    names = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in sorted(names.items())}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of a file: at its top, inside functions, for types only, or by a literal name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def may_import(room: str, target: str) -> bool:
    if target == "tests":
        return room == "benchmarks"  # which time launches against the tests' stand-in for Slurm
    if target not in RANK:
        return True  # a package that is installed
    return target == room or (RANK[target] > RANK[room] and target not in NEVER.get(room, ()))


def first_to_load(packages: set[str], names: list[str]) -> dict[str, list[str]]:
    """Imports modules one after another in a fresh Python; those that brought one of the packages with them."""
    code = (
        "import importlib, json, sys\nbrought, packages = {}, set(json.loads(sys.argv[1]))\n"
        "for name in sys.argv[2:]:\n"
        "    before = set(sys.modules)\n    importlib.import_module(name)\n"
        "    if new := sorted(packages & set(sys.modules) - before): brought[name] = new\n"
        "print(json.dumps(brought))"
    )
    command = [sys.executable, "-c", code, json.dumps(sorted(packages)), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_module_belongs_to_a_room():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert folders | {path.stem for path in ROOT.glob("*.py")} == set(RANK)


def test_rooms_import_only_from_rooms_below_them():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for name, path in modules().items()
        for line, target in imported(path)
        if not may_import(name.partition(".")[0], target.partition(".")[0])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("room", "target", "allowed"),
    [
        ("sweeps", "experiments", True),
        ("experiments", "sweeps", False),
        ("reports", "experiments", False),
        ("reports", "results", True),
        ("doctor", "benchmarks", False),
        ("atm", "errors", False),
        ("run_format", "errors", False),
    ],
)
def test_the_order_allows_and_refuses(room, target, allowed):
    assert may_import(room, target) is allowed


def test_imports_inside_functions_and_by_name_are_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import importlib\n"
        "def function():\n    from sweeps.plan import load\n    importlib.import_module('reports.render')\n"
    )
    assert {target for _, target in imported(file)} == {"importlib", "sweeps.plan", "reports.render"}


def test_modules_load_torch_only_where_that_is_stated():
    def stated(name: str) -> bool:
        return any(f"{name}.".startswith(entry) if entry[-1] == "." else name == entry for entry in WITH_TORCH)

    free = [name for name in modules() if not stated(name)]
    assert {"sweeps.plan", "sweeps.status", "experiments.config", "doctor.examination", "reports.commands"} <= set(free)
    assert first_to_load(TORCH, free) == {}


def test_every_module_that_may_load_torch_exists():
    names = set(modules())
    assert [stated for stated in WITH_TORCH if stated.rstrip(".") not in names] == []


def test_rooms_that_read_results_load_nothing_heavy_when_they_are_imported():
    light = [name for name in modules() if name.partition(".")[0] in LIGHT_ROOMS]
    assert len(light) > 40
    assert first_to_load(HEAVY, light) == {}


def test_a_class_name_has_one_meaning():
    places = defaultdict(list)
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    duplicates = {name: files for name, files in places.items() if len(files) > 1}
    assert duplicates == {}


@pytest.mark.parametrize("word", COMMANDS)
def test_the_function_of_a_command_takes_what_the_table_gives_it(word):
    command = COMMANDS[word]
    arguments = ("NAME", {}, None, *map(_load, command.needs))
    inspect.signature(_load(command.function)).bind(*arguments)


def test_an_option_names_commands_that_exist():
    assert {taker for option in OPTIONS.values() for taker in option.commands} <= set(COMMANDS)
