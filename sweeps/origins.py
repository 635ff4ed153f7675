"""What the runs of a plan rest on, compared with what it was when they began: a run is never taken for another's."""

from __future__ import annotations

from pathlib import Path

from experiments.folder.parent import refuse_other_weights
from experiments.folder.run_folder import RunFolder
from sweeps.plan import Plan


def refuse_other_origins(plan: Plan, runs_dir: Path) -> None:
    """Raises ConfigError where a run began with initial weights of another content than it would start from now."""
    for run in plan.distinct().values():
        if run.config.init:
            refuse_other_weights(RunFolder(runs_dir / run.id), run.config.init, runs_dir)
