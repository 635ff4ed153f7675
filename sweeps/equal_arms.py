"""Arms of a plan that are one network under two names, so that their difference is 0 whatever they ask. No torch.

Settings can differ and the network be the same: an interval of offsets of 2 and of *stage* in stages of two blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from experiments.backbones import is_timm, read_variants
from experiments.config import scientific
from experiments.model_costs import opening_blocks
from experiments.schema import Config
from sweeps.plan import Plan

INTERVAL = "model.offset_interval"


def sentences(plan: Plan) -> Iterator[str]:
    """A line for every group of arms that are one network in the sweep's own task."""
    groups: dict[str, dict[str, str]] = {}
    own = plan.tasks[0].name
    for run in plan.runs:
        if run.task == own:
            groups.setdefault(_network(run.config), {}).setdefault(run.id, run.arm)
    seen = set()
    for arms in (tuple(group.values()) for group in groups.values() if len(group) > 1):
        if arms not in seen:
            seen.add(arms)
            model = next(run.config.model.name for run in plan.runs if run.arm == arms[0])
            *others, last = arms
            yield (
                f"{', '.join(others)} and {last} are one network with model={model}, in which their offset intervals "
                "give the same offsets: their difference says nothing"
            )


def _network(config: Config) -> str:
    """All that decides a run, with the blocks that have new offsets in place of the interval."""
    settings = scientific(config)
    model = config.model
    if INTERVAL in settings and model.name is not None and not is_timm(model.name):
        interval, depths = settings.pop(INTERVAL), read_variants()[model.name]["depths"]
        settings["opening"] = [opening_blocks(depth, interval) for depth in depths]
    return json.dumps(settings, sort_keys=True, default=str)
