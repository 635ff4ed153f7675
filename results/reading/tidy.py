"""The metrics of many runs as one table, filled in place: of 24 million rows a second copy would not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from results.reading.chunk import Place
from results.reading.metrics_log import MISSING, Log
from results.reading.threads import in_threads

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("run", "arm", "seed", "task", "protocol", "step", "epoch", "metric", "value", "final")
TEXTS = ("run", "arm", "task", "protocol")  # of a cell; as categoricals, and so is the metric
AT_ONCE = 32  # runs whose numbers are moved together: what is computed on the way stays in the processor's cache


class Cell(NamedTuple):
    """A planned arm and seed, and where its run is."""

    run: str
    arm: str
    seed: int
    task: str
    protocol: str
    place: Place


class _Piece(NamedTuple):
    """Neighbouring rows of a chunk, from ``row`` on, that are neighbouring cells and whose metrics are the same."""

    row: int
    cells: range


def metrics(cells: Sequence[Cell]) -> pd.DataFrame:
    """Cell by cell, row by row of each log, the summary's values last. The chunks forget their logs on the way.

    Categories are in alphabetical order; integers have 32 bits where that is enough.
    """
    import numpy as np
    import pandas as pd

    cells = [cell for cell in cells if cell.place.chunk.counts[cell.place.row]]
    chunks = {id(cell.place.chunk): cell.place.chunk for cell in cells}
    names = {text: json.loads(text) for text in {cell.place.chunk.names[cell.place.row] for cell in cells}}
    categories = {kind: sorted({getattr(cell, kind) for cell in cells}) for kind in TEXTS}
    categories["metric"] = sorted(set().union(*names.values()))
    of_names = {text: _codes(found, categories["metric"]) for text, found in names.items()}
    of_cells = {kind: _codes([getattr(cell, kind) for cell in cells], categories[kind]) for kind in TEXTS}
    seeds = np.array([cell.seed for cell in cells], dtype=np.int64)
    of_cells["seed"] = seeds.astype(_integers([seeds]))
    starts = np.cumsum([0, *(cell.place.chunk.counts[cell.place.row] for cell in cells)])

    types = {kind: codes.dtype for kind, codes in of_cells.items()}
    types |= {kind: _integers(chunk.lists[f"{kind}s"][1] for chunk in chunks.values()) for kind in ("step", "epoch")}
    types |= {"metric": _codes([], categories["metric"]).dtype, "value": np.dtype(float)}
    various = [kind for kind, codes in of_cells.items() if codes.any()]
    table = {kind: np.empty(starts[-1], dtype) for kind, dtype in types.items()}
    types |= dict.fromkeys(("final", "no epoch"), np.dtype(bool))
    for kind in types.keys() - {*various, "step", "epoch", "metric", "value"}:
        table[kind] = np.zeros(starts[-1], types[kind])  # which takes no memory where nothing else is written

    def fill(key: int) -> None:
        chunk = chunks[key]
        for row, mine in pieces[key]:
            log = chunk.logs(row, row + len(mine))
            part = slice(starts[mine.start], starts[mine.stop])
            here = None if part.stop - part.start == log.values.size else ~np.isnan(log.values)
            none = log.epochs == MISSING
            if none.any():
                table["no epoch"][part] = _per_value(none, log, here)
            table["epoch"][part] = _per_value(np.where(none, 0, log.epochs).astype(types["epoch"]), log, here)
            table["step"][part] = _per_value(log.steps.astype(types["step"]), log, here)
            codes = np.broadcast_to(of_names[chunk.names[row]], log.values.shape)
            table["metric"][part] = codes.ravel() if here is None else codes[here]
            table["value"][part] = log.values.ravel() if here is None else log.values[here]
            for number in mine:
                cell = slice(starts[number], starts[number + 1])
                for kind in various:
                    table[kind][cell] = of_cells[kind][number]
                table["final"][starts[number + 1] - chunk.finals[row + number - mine.start] : starts[number + 1]] = True
        chunk.forget_logs()

    pieces = _pieces(cells)
    in_threads(fill, list(chunks))
    columns: dict[str, Any] = {**table, "epoch": pd.arrays.IntegerArray(table["epoch"], table["no epoch"])}
    for kind, found in categories.items():
        columns[kind] = pd.Categorical.from_codes(table[kind], dtype=pd.CategoricalDtype(found), validate=False)
    return pd.DataFrame({column: columns[column] for column in COLUMNS}, copy=False)


def _pieces(cells: Sequence[Cell]) -> dict[int, list[_Piece]]:
    """Per chunk, by its identity."""
    found: dict[int, list[_Piece]] = {}
    for number, (chunk, row) in enumerate(cell.place for cell in cells):
        mine = found.setdefault(id(chunk), [])
        if mine and number == mine[-1].cells.stop < mine[-1].cells.start + AT_ONCE:
            first, before = mine[-1]
            if row == first + len(before) and chunk.names[row] == chunk.names[first]:
                mine[-1] = _Piece(first, range(before.start, number + 1))
                continue
        mine.append(_Piece(row, range(number, number + 1)))
    return found


def _per_value(of_rows: np.ndarray, log: Log, here: np.ndarray | None) -> np.ndarray:
    """One for every value that is there, of one for every row."""
    import numpy as np

    return np.repeat(of_rows, len(log.names) if here is None else here.sum(axis=1))


def _codes(values: Sequence[str], categories: Sequence[str]) -> np.ndarray:
    import numpy as np

    numbers = {category: number for number, category in enumerate(categories)}
    smallest = next(kind for kind in (np.int8, np.int16, np.int32) if len(categories) <= np.iinfo(kind).max)
    return np.array([numbers[value] for value in values], dtype=smallest)


def _integers(columns: Iterable[np.ndarray]) -> np.dtype[Any]:
    """32 bits, or 64 where any of these numbers needs them."""
    import numpy as np

    limits = np.iinfo(np.int32)
    full = (column for column in columns if len(column))
    known = (column[column != MISSING] if column.min() == MISSING else column for column in full)
    fits = all(limits.min <= column.min() and column.max() <= limits.max for column in known if len(column))
    return np.dtype(np.int32 if fits else np.int64)
