"""Where a run's numbers come from: code, data, packages, hardware."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.config import ROOT

CHECKOUT = "checkout.json"
SOURCES = ("atm", "experiments")  # folders of a checkout that compute
RUN = "run.py"  # at the top of a checkout
CODE = (".py", ".yaml", ".cpp")  # endings of source files
PACKAGES = ("torch", "torchvision", "timm", "numpy", "omegaconf", "pillow", "pycocotools")


def collect(data_fingerprint: str, code: str, sampler: str) -> dict[str, Any]:
    """The content of a run's ``provenance.json``.

    code: fingerprint of the sources that are running; sampler: the sampling backend as ``atm.sampling`` describes it.
    """
    return {
        **checkout(),
        "code_fingerprint": code,
        "data_fingerprint": data_fingerprint,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
        "sampler": sampler,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def checkout(root: Path | None = None) -> dict[str, Any]:
    """The commit, and whether ``atm/`` and ``experiments/`` differ from it; None where ``root`` is no git checkout.

    A copy of the sources has no history; the file CHECKOUT in it says what it was taken from.
    """
    root = root or ROOT
    if (root / CHECKOUT).is_file():
        origin = json.loads((root / CHECKOUT).read_text())
        return {"commit": origin["commit"], "dirty": origin["dirty"]}
    commit = git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    # whatever the user's settings hide
    changes = git(root, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none", "--", *SOURCES)
    return {"commit": commit.decode().strip(), "dirty": changes is None or bool(changes.strip())}


def accepted_codes(content: Mapping[str, Any]) -> set[str]:
    """Fingerprints of the code with which a run goes on, from its ``provenance.json``; empty where it names none.

    They are those of the code that it began with, of code that computed the same in a replay, and of code that it was
    forced to go on with.
    """
    codes = str(content.get("code_fingerprint") or "").split("+")
    replays = (each.get("code") for each in content.get("replays") or [] if isinstance(each, dict))
    return {*codes, *(code for code in replays if isinstance(code, str))} - {""}


def version() -> str:
    """The version of the suite and, in a checkout, its commit."""
    number = re.search(r'^__version__ = "(.+)"', (ROOT / "atm" / "__init__.py").read_text(), re.MULTILINE)
    about = checkout(ROOT)
    commit = f", commit {about['commit'][:8]}{' with changes' if about['dirty'] else ''}" if about["commit"] else ""
    return f"active-token-mixer {number[1] if number else 'of unknown version'}{commit}"


def listing_fingerprint(names: list[str]) -> str:
    """Hash of a data set's file listing (names relative to its root), in order."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def hardware() -> dict[str, Any]:
    import torch

    described: dict[str, Any] = {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "machine": platform.machine()}
    if torch.cuda.is_available():
        described["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return described


def processor() -> str:
    """The CPU as far as it decides how fast a run is, e.g. ``CPU (AMD EPYC 9654, 8 cores)``. Does not import torch."""
    return f"CPU ({_cpu()}, {len(os.sched_getaffinity(0))} cores)"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git(root: Path, *arguments: str) -> bytes | None:
    """Output of a git command about the checkout ``root``; None where that is none, or the command fails.

    A folder within another repository is no checkout, and the environment cannot name another one (GIT_DIR).
    """
    if not (root / RUN).is_file():
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def output(*words: str) -> bytes | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, env=environment, capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    top = output("rev-parse", "--show-toplevel")
    if top is None or Path(os.fsdecode(top.removesuffix(b"\n"))).resolve() != root.resolve():
        return None
    return output(*arguments)
