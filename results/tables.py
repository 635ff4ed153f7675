"""The three tables of collected results: runs, metrics and curves, with their columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results.run_folders.metrics_log import MISSING, LoggedMetrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RUN_COLUMNS = (
    "arm", "task", "seed", "run", "parent", "state", "cause", "progress", "model", "params_m", "flops_g", "epochs",
    "step", "wall_s", "images_per_s", "device", "finished", "commit", "dirty", "code_fingerprint", "data_fingerprint",
    "python", "torch", "notes", "config", "log_line",
)  # fmt: skip
NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("progress", "params_m", "flops_g", "wall_s", "images_per_s"), "float64"),
    **dict.fromkeys(("seed", "epochs", "step", "log_line"), "Int64"),
}
METRIC_COLUMNS = ("run", "arm", "task", "seed", "protocol", "step", "epoch", "metric", "value", "final")
RUN_TEXTS = ("run", "arm", "task", "protocol")  # texts of the metrics table that are the same for a whole run
AT_ONCE = 16  # logs whose numbers are moved together
CURVE_COLUMNS = ("run", "arm", "task", "seed", "curve")
REPEAT_COLUMNS = ("run", "metric", "value", "device", "finished")


@dataclass
class Collected:
    """The results of a sweep's runs.

    runs: one row per planned (arm, task, seed), whatever its state (RUN_COLUMNS); ``config`` is the text of its
    config.yaml, ``log_line`` the line of metrics.jsonl (from 1) that holds its last row;
    metrics: the whole log of every run that started; ``final`` marks the summary's values, the only ones reported;
    curves: rows of finished runs' curves (CURVE_COLUMNS and whatever columns the curve has);
    warnings: what is wrong in the folders and was not counted; examples: run id → its ``examples.npz``;
    records: run id → its per-image records (``results.records``);
    interventions: run id → the file of its offset interventions (``results.run_folders.interventions``), which is known
    to be of that training of the run;
    about: title, sweep, protocol, plan, hardware, date, note of measured results that were read back;
    tasks: those of the plan, the sweep's own first;
    repeats: final values of runs that were measured more than once (REPEAT_COLUMNS), without those that count;
    excluded: run id → why a person left it out: its state is ``excluded``, and no other table has rows of it;
    exclusions: these, and measurements that were left out and replaced by another one of the same run;
    with_excluded: the same results before anything was left out, to be written; None where nothing was;
    remarks: sentences about where the rows come from;
    labels: run id → the measured results that its rows come from, where the others come from run folders.

    ``task`` in all tables is the plan's name of the task.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    curves: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    examples: dict[str, Path] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, Path] = field(default_factory=dict)
    repeats: pd.DataFrame = field(default_factory=lambda: no_repeats())
    excluded: dict[str, str] = field(default_factory=dict)
    exclusions: list[Exclusion] = field(default_factory=list)
    with_excluded: Collected | None = None
    remarks: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    interventions: dict[str, Path] = field(default_factory=dict)

    def finals(self, metric: str, task: str | None = None) -> pd.DataFrame:
        """arm, task, seed, run, value of ``metric`` for every finished run that has it, of one task if it is named."""
        finals = self.metrics[self.metrics["final"] & (self.metrics["metric"] == metric)]
        if task is not None:
            finals = finals[finals["task"] == task]
        texts = dict.fromkeys(("arm", "task", "run"), str)
        return finals[["arm", "task", "seed", "run", "value"]].astype(texts).reset_index(drop=True)


class Exclusion(NamedTuple):
    """A measurement of a run that a person left out. finished, device: which one; values: its final values."""

    run: str
    because: str
    finished: str
    device: str
    values: Mapping[str, float]


class RunLog(NamedTuple):
    """The log of a planned run, whose last ``finals`` numbers are its summary's."""

    run: str
    arm: str
    task: str
    seed: int
    protocol: str
    log: LoggedMetrics
    finals: int


def runs_table(rows: Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """The runs table with its types, the same whether the rows come from folders or from a CSV file."""
    import pandas as pd

    listed, columns = list(rows), {}
    for column in RUN_COLUMNS:
        values = [row.get(column) for row in listed]
        if column in NUMBERS:
            columns[column] = pd.to_numeric(pd.Series(values, dtype=object)).astype(NUMBERS[column])
        else:
            texts = ["" if value is None or value != value else value for value in values]
            columns[column] = pd.Series(texts, dtype=object)
    return pd.DataFrame(columns)


def no_repeats() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {column: pd.Series(dtype="float64" if column == "value" else object) for column in REPEAT_COLUMNS}
    )


def typed_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """The metrics table with its types; ``frame`` has the same columns in any types."""
    texts = {column: frame[column].astype(str).astype("category") for column in (*RUN_TEXTS, "metric")}
    types = {"seed": "int64", "step": "int64", "epoch": "Int64", "value": "float64", "final": "bool"}
    return frame.assign(**texts)[list(METRIC_COLUMNS)].astype(types)


def metrics_table(logs: Sequence[RunLog]) -> pd.DataFrame:
    """The logs' numbers run by run, row by row, in columns that are filled in place: there may be 24 million.

    Categories are in alphabetical order; integers have 32 bits where that is enough.
    """
    import numpy as np
    import pandas as pd

    counts = np.array([each.log.values.size - np.isnan(each.log.values).sum() for each in logs], dtype=np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    metrics = sorted({name for each in logs for name in each.log.names})
    code_of = {name: code for code, name in enumerate(metrics)}
    values, finals = np.empty(total), np.zeros(total, bool)
    metric = np.empty(total, np.min_scalar_type(-max(len(metrics), 1)))
    step = np.empty(total, _integers([each.log.steps for each in logs]))
    epoch = np.empty(total, _integers([each.log.epochs for each in logs]))
    without_epoch = np.zeros(total, bool)
    for each, end in zip(logs, ends.tolist()):
        finals[end - each.finals : end] = True
    start = 0
    for names, batch in _batches(logs):
        numbers = np.concatenate([log.values for log in batch])
        present = ~np.isnan(numbers)
        per_row = present.sum(axis=1)
        part = slice(start, start := start + int(per_row.sum()))
        codes = np.array([code_of[name] for name in names], metric.dtype)
        epochs = np.concatenate([log.epochs for log in batch])
        missing = epochs == MISSING
        values[part] = numbers[present]
        metric[part] = np.broadcast_to(codes, present.shape)[present]
        step[part] = np.repeat(np.concatenate([log.steps for log in batch]), per_row)
        epoch[part] = np.repeat(np.where(missing, 0, epochs), per_row)
        without_epoch[part] = np.repeat(missing, per_row)
    seeds = np.array([each.seed for each in logs], np.int64)
    columns: dict[str, Any] = {kind: _repeated([getattr(each, kind) for each in logs], counts) for kind in RUN_TEXTS}
    columns |= {
        "seed": np.repeat(seeds.astype(_integers([seeds])), counts),
        "step": step,
        "epoch": pd.arrays.IntegerArray(epoch, without_epoch),
        "metric": pd.Categorical.from_codes(metric, dtype=pd.CategoricalDtype(metrics), validate=False),
        "value": values,
        "final": finals,
    }
    return pd.DataFrame({column: columns[column] for column in METRIC_COLUMNS}, copy=False)


def _batches(logs: Sequence[RunLog]) -> Iterator[tuple[tuple[str, ...], list[LoggedMetrics]]]:
    """Neighbouring logs with the same metrics, few enough that their numbers stay in the processor's cache.

    Logs whose rows hold no number are left out.
    """
    for names, group in groupby((each.log for each in logs if each.log.names), key=lambda log: log.names):
        while batch := list(islice(group, AT_ONCE)):
            yield names, batch


def _repeated(texts: Sequence[str], counts: np.ndarray) -> pd.Categorical:
    """Each text as often as its run has numbers."""
    import numpy as np
    import pandas as pd

    categories = sorted({text for text, count in zip(texts, counts) if count})
    code_of = {text: code for code, text in enumerate(categories)}
    codes = np.array([code_of.get(text, 0) for text in texts], np.min_scalar_type(-max(len(categories), 1)))
    dtype = pd.CategoricalDtype(categories)
    return pd.Categorical.from_codes(np.repeat(codes, counts), dtype=dtype, validate=False)


def _integers(columns: Sequence[np.ndarray]) -> np.dtype[Any]:
    """32 bits, or 64 where any of these numbers needs them."""
    import numpy as np

    limits = np.iinfo(np.int32)
    known = (column[column != MISSING] for column in columns)
    fits = all(limits.min <= column.min() and column.max() <= limits.max for column in known if len(column))
    return np.dtype(np.int32 if fits else np.int64)
