"""The reported metric against training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.figures import lines, style
from run_format import DONE

if TYPE_CHECKING:
    from reports.content.table import TaskTable
    from reports.specification import Figure

AIR = 0.05  # of the height, above and below what the seeds reach


def draw(table: TaskTable, figure: Figure) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None where no finished run logged the metric more than once."""
    from matplotlib.ticker import StrMethodFormatter

    metric, metrics = table.metric, table.collected.metrics
    done = set(table.runs[table.runs["state"] == DONE]["run"])
    logged = metrics[(metrics["metric"] == metric.metric) & metrics["run"].isin(done)]
    if logged.empty or logged["step"].nunique() < 2:
        return None
    seeds = lines.over_seeds(logged, ["step"])
    summary = lines.with_intervals(seeds, logged, ["step"])
    canvas = style.new_figure(5.6, 3.6)
    canvas.subplots_adjust(right=0.78)
    axes = canvas.subplots()
    ends = lines.lines(axes, summary, "step", table)
    lines.chance_line(axes, metric.chance)
    axes.set_xlim(0, float(summary["step"].max()))
    # early in training an interval of three seeds can be wider than all that happens later: it is clipped
    shown = [seeds["low"].min(), seeds["high"].max(), *([] if metric.chance is None else [metric.chance])]
    air = AIR * (max(shown) - min(shown) or 1.0)
    axes.set_ylim(min(shown) - air, max(shown) + air)
    style.percent_axis(axes, metric.unit)
    axes.set_xlabel("Training step")
    axes.set_ylabel(f"{metric.label} ({metric.unit}){lines.axis_words(summary['n'], 'band')}")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lines.finish(canvas, [(axes, ends)])
    caption = f"{metric.label} during training: mean over finished seeds; {lines.seed_words(summary['n'], 'band')}."
    return canvas, summary.round(4), "Learning curves", caption
