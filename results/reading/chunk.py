"""A chunk: run folders as rows of one Arrow table, whose list columns hold the logs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from results.reading.metrics_log import Log

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(eq=False)
class Chunk:
    """``table`` has the columns of ``folders.schema()``; ``path`` is None where it is not kept."""

    table: pa.Table
    path: Path | None = None

    @cached_property
    def runs(self) -> list[str]:
        return self.list("run")

    @cached_property
    def counts(self) -> list[int]:
        return self.list("count")

    @cached_property
    def names(self) -> list[str]:
        return self.list("names")

    @cached_property
    def configs(self) -> list[str]:
        return self.list("config")

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(f"[{','.join(self.list('facts'))}]")
        return found

    @cached_property
    def finals(self) -> list[int]:
        return self.list("finals")

    def stamps(self) -> np.ndarray:
        """[runs, numbers]"""
        found: np.ndarray = self._column("stamps").flatten().to_numpy()
        return found.reshape(len(self.table), -1)

    @cached_property
    def lists(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """steps, epochs and values: where each run's begin, and all of them behind each other."""
        columns = {name: self._column(name) for name in ("steps", "epochs", "values")}
        # `values`, not `flatten`, is what the offsets count in
        return {name: (column.offsets.to_numpy(), column.values.to_numpy()) for name, column in columns.items()}

    def list(self, column: str) -> list[Any]:
        found: list[Any] = self.table.column(column).to_pylist()
        return found

    def logs(self, first: int, end: int) -> Log:
        """The logs of the rows from first to before end, behind each other; they must have the same names."""

        def part(name: str) -> np.ndarray:
            starts, content = self.lists[name]
            return content[starts[first] : starts[end]]

        names = tuple(json.loads(self.names[first]))
        return Log(names, part("steps"), part("epochs"), part("values").reshape(-1, len(names)))

    def forget_logs(self) -> None:
        """Lets go of all but the lists of texts and numbers that were asked for before."""
        self.table = self.table.schema.empty_table()
        self.__dict__.pop("lists", None)

    def _column(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # the latter copies


class Place(NamedTuple):
    """Where a run is: a row of a chunk."""

    chunk: Chunk
    row: int
