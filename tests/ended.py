"""A run folder as a finished run leaves it, for tests that train nothing."""

from __future__ import annotations

import re
from typing import Any

from experiments.folder.run_folder import RunFolder
from run_format import CONFIG, PROVENANCE, SUMMARY


def end(folder: RunFolder, **summary: Any) -> None:
    """Writes the summary, with what a result must have beside the given parts; a provenance and a config if there are
    none."""
    folder.path.mkdir(parents=True, exist_ok=True)
    seed = re.search(r"-s(\d+)-", folder.id)
    whole = {"run": folder.id, "seed": int(seed[1]) if seed else 0, "protocol": "smoke", "step": 1}
    if not (folder.path / PROVENANCE).exists():
        folder.write_json(PROVENANCE, {"commit": None})
    if not (folder.path / CONFIG).exists():
        (folder.path / CONFIG).write_text("{}\n")
    folder.write_json(SUMMARY, {**whole, "metrics": {"eval/top1": 50.0}, **summary})
