"""Results and reports never import torch, and importing the rooms costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for room in ("results", "reports")
    for path in (ROOT / room).rglob("*.py")
    if not path.is_relative_to(ROOT / "results" / "runs")  # frozen copies of the code
)


def loaded(*modules: str) -> set[str]:
    code = "import importlib, json, sys\nfor m in sys.argv[1:]: importlib.import_module(m)\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_every_module_loads_nothing_heavy():
    assert len(MODULES) > 20
    assert not loaded(*MODULES) & {
        "torch",
        "torchvision",
        "timm",
        "pandas",
        "numpy",
        "scipy",
        "matplotlib",
        "seaborn",
        "rich",
    }


@pytest.mark.slow
def test_collecting_and_rendering_never_loads_torch(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.results.synthetic import make_plan, make_runs
from results.collect import collect
from reports import specification_files
from reports.content import compose
from reports.formats import files, terminal
plan = make_plan(seeds=(0,)); folder = Path({str(tmp_path)!r})
make_runs(folder / "runs", plan)
collected = collect(plan, folder / "runs")
spec = specification_files.of_sweep("ablation_offsets")
results = compose.Results(spec, collected, plan, folder / "runs")
files.write(compose.page("paper", [results]), folder / "out")  # with every figure
terminal.to_json(results.ablation())
assert "matplotlib" in sys.modules
assert not {{"torch", "timm", "atm", "experiments", "sweeps"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
