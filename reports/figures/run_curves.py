"""The learning curves of one run: its training loss, and what it was judged by, against training steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.figures import Drawing
    from results.run_folders.metrics_log import LoggedMetrics

LOSS = "train/loss"


def draw(run: str, log: LoggedMetrics) -> Iterator[Drawing]:
    """A figure with a panel per metric: the training loss first, then every metric of the evaluation, up to four."""
    import numpy as np
    import pandas as pd

    from reports.figures import drawing, style

    shown = [name for name in log.names if name == LOSS or name.startswith("eval")]
    finite = {name: np.isfinite(log.values[:, log.names.index(name)]) for name in shown}
    shown = [name for name in shown if finite[name].sum() > 1][:4]
    if not shown:
        return
    with style.theme():
        canvas = style.new_figure(5.6, 1.9 * len(shown) + 0.6)
        panels = canvas.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, shown):
            rows = finite[name]
            axes.plot(log.steps[rows], log.values[rows, log.names.index(name)], marker="o", markersize=2.5)
            axes.set_ylabel(re.sub("[/_]", " ", name))
        panels[-1].set_xlabel("Training step")
        columns = {name: log.values[:, log.names.index(name)] for name in shown}
        data = pd.DataFrame({"step": log.steps, **columns}).round(5)
        caption = f"What {run} logged so far: {', '.join(shown)}."
        yield drawing("curves", canvas, data, "Learning curves", caption)
