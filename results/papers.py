"""The papers' printed numbers: ``published/*.csv``, one tidy row per number, exactly as printed.

Beside the two papers on ATM, that is STM-Evaluation, which compares mixers in a frame of its own; its numbers are those
of its released models.

``published/contradictions.yaml`` says which of them cannot all be right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import SuiteError, unknown

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = Path(__file__).resolve().parent / "published"
CONTRADICTIONS = "contradictions.yaml"
COLUMNS = ("source", "table", "row", "model", "head", "protocol", "metric", "value", "unit", "note")
SOURCES = {
    "AAAI": "Active Token Mixer, AAAI 2023 (arXiv 2203.06108)",
    "v1": "ActiveMLP, arXiv 2203.06108v1",
}
OTHERS = {  # whose numbers stand beside ours where a report names them
    "STM": "Demystify Transformers & Convolutions in Modern Image Deep Networks, TPAMI 2025 (arXiv 2211.05781)",
}


# the largest gap, in points, that counts as none: about what another seed changes (top-1) or the papers call a tie
MARGINS = {"top1": 0.5, "ap_box": 0.5, "ap_mask": 0.5, "miou": 1.0}
OTHER_MARGIN = 0.5


class PublishedError(SuiteError):
    """A published number that does not exist, or a file of them that cannot be read."""


@dataclass(frozen=True)
class Number:
    """One published number with its place. ``value`` is None where the paper says something but prints no number."""

    source: str
    table: str
    row: str
    model: str
    value: float | None
    printed: str
    unit: str
    note: str
    head: str = "classification"
    protocol: str = ""
    metric: str = ""

    @property
    def place(self) -> str:
        return f"{self.source} {self.table} {self.row}"

    @property
    def decimals(self) -> int:
        """How many decimals were printed: the precision to which anything can be compared with it."""
        mantissa, _, exponent = self.printed.partition("e")
        return max(0, len(mantissa.partition(".")[2]) - int(exponent or 0))


@dataclass(frozen=True)
class Contradiction:
    """Something in the papers that something else contradicts.

    ``rows`` and ``metrics`` name the numbers of ``table`` that it is about, which have one head. A statement that names
    no number has neither: its ``table`` is the section or equation where it stands, and ``concerns`` the tables whose
    reader has to know it.

    kind: "misprint" (the number is wrong where it stands), "rounding" (not what the exact value rounds to),
    "tables" (two tables of one version differ), "editions" (the two versions of the paper differ), "text" (the prose
    states what the numbers do not give), "wording" (words or a formula that others, or the model, contradict).
    """

    source: str
    table: str
    kind: str
    printed: str
    against: str
    evidence: str
    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    concerns: tuple[str, ...] = ()
    head: str = "classification"
    protocol: str | None = None


@cache
def _load() -> pd.DataFrame:
    import pandas as pd

    frames = []
    for path in sorted(PUBLISHED.glob("*.csv")):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if tuple(frame.columns) != COLUMNS:
            raise PublishedError(f"{path.name}: columns must be {', '.join(COLUMNS)}")
        frames.append(frame.assign(file=path.name))
    table = pd.concat(frames, ignore_index=True)
    table["printed"] = table["value"]
    try:
        table["value"] = pd.to_numeric(table["value"].replace("", None))
    except ValueError as error:
        raise PublishedError(f"published numbers: {error}") from None
    return table


def load() -> pd.DataFrame:
    """Every published number: the CSV's columns, ``value`` as a float, ``printed`` as the printed text, ``file``."""
    return _load().copy()


@cache
def metrics(
    source: str, table: str, row: str, head: str = "classification", protocol: str | None = None
) -> tuple[str, ...]:
    """The metrics that a row prints for a head, or those that it prints for the head under one protocol."""
    frame = _load()
    chosen = (frame["source"] == source) & (frame["table"] == table) & (frame["row"] == row) & (frame["head"] == head)
    if protocol is not None:
        chosen &= frame["protocol"] == protocol
    return tuple(frame[chosen]["metric"])


@cache
def number(
    source: str, table: str, row: str, metric: str, head: str = "classification", protocol: str | None = None
) -> Number:
    """Looks up a number; give ``protocol`` where a table prints the metric for several (1x and 3x MS).

    Raises PublishedError, naming the nearest valid name, where there is no such number.
    """
    matching = _load()
    place = [("source", source), ("table", table), ("row", row), ("head", head), ("metric", metric)]
    for column, name in place if protocol is None else [*place, ("protocol", protocol)]:
        narrowed = matching[matching[column] == name]
        if narrowed.empty:
            raise PublishedError(f"published numbers: {unknown(column, name, matching[column].unique())}")
        matching = narrowed
    if len(matching) > 1:
        protocols = "; ".join(matching["protocol"])
        raise PublishedError(f"published numbers: {source} {table} {row} {metric} needs its protocol ({protocols})")
    return _number(matching.iloc[0])


def _number(row: Any) -> Number:
    """The number on one line of the CSV files."""
    value = float(row["value"]) if row["printed"] else None
    place = (row["source"], row["table"], row["row"], row["model"])
    return Number(*place, value, row["printed"], row["unit"], row["note"], row["head"], row["protocol"], row["metric"])


@cache
def numbers(source: str, table: str) -> tuple[Number, ...]:
    """Every number of one of a paper's tables, in printed order."""
    frame = _load()
    rows = frame[(frame["source"] == source) & (frame["table"] == table)]
    if rows.empty:
        known = (frame["source"] + " " + frame["table"]).unique()
        raise PublishedError(f"published numbers: {unknown('table', f'{source} {table}', known)}")
    return tuple(_number(row) for row in rows.to_dict("records"))


def margin(metric: str) -> float:
    """Within how many points of a published number ours has to lie to agree with it."""
    return MARGINS.get(metric, OTHER_MARGIN)


@cache
def _contradictions() -> tuple[Contradiction, ...]:
    import yaml_files

    entries = []
    for content in yaml_files.load((PUBLISHED / CONTRADICTIONS).read_bytes(), CONTRADICTIONS):
        try:
            entry = Contradiction(**content)
        except TypeError as error:
            raise PublishedError(f"{CONTRADICTIONS}: {error}") from None
        lists: dict[str, Any] = {name: tuple(getattr(entry, name)) for name in ("rows", "metrics", "concerns")}
        entries.append(replace(entry, **lists))
    return tuple(entries)


def contradictions(
    source: str | None = None, table: str | None = None, row: str | None = None
) -> tuple[Contradiction, ...]:
    """The known contradictions of a source's numbers, of those in one of its tables, or in one row of it."""
    return tuple(
        entry
        for entry in _contradictions()
        if source in (None, entry.source) and table in (None, entry.table) and (row is None or row in entry.rows)
    )


def contradicting(number: Number) -> tuple[Contradiction, ...]:
    """The known contradictions of a printed number."""
    return tuple(
        entry
        for entry in contradictions(number.source, number.table, number.row)
        if number.metric in entry.metrics and entry.head == number.head and entry.protocol in (None, number.protocol)
    )


def statements(source: str | None = None, table: str | None = None) -> tuple[Contradiction, ...]:
    """The known contradictions that name no number: all of them, or those that concern a source's table."""
    return tuple(
        entry for entry in contradictions(source) if not entry.rows and (table is None or table in entry.concerns)
    )
