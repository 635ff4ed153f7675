"""What is installed for users of the model alone."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import yaml

import atm

ROOT = Path(__file__).resolve().parents[2]
BUILD = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"


def test_the_wheel_has_every_file_of_atm_and_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for room in ("atm", "experiments"):
        shutil.copytree(ROOT / room, source / room, ignore=ignored)
    (source / "docs").mkdir()
    for name in ("pyproject.toml", "docs/package.md", "LICENSE", "run.py"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = message_from_bytes(wheel.read(next(name for name in names if name.endswith("/METADATA"))))
    files = {path.relative_to(source).as_posix() for path in (source / "atm").rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == files and "atm/py.typed" in files
    assert any(name.endswith("/LICENSE") for name in names)
    assert metadata["Version"] == atm.__version__ and metadata["License-Expression"] == "MIT"


def test_the_citation_names_the_suite_and_both_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["license"] == "MIT" and citation["title"] in (ROOT / "README.md").read_text("utf-8")
    assert [len(paper["authors"]) for paper in citation["references"]] == [5, 5]
