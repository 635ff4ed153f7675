"""Files of measured results that belong to one run each: ``measured/<label>/<kind>/<run><suffix>``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import atomic_file


@dataclass(frozen=True)
class RunFiles:
    """folder: its name below that of the label; suffix: what follows the run's id in the name of its file."""

    folder: str
    suffix: str

    def write(self, contents: Mapping[str, bytes | str], label: Path) -> list[Path]:
        """Writes the files of all runs of a label (run → content), and removes those of runs that it no longer has.

        label: the folder of the measured results.
        """
        for path in (label / self.folder).glob(f"*{self.suffix}"):
            if path.name.removesuffix(self.suffix) not in contents:
                path.unlink()
        return [atomic_file.write(self.path(label, run), content) for run, content in contents.items()]

    def paths(self, label: Path, runs: Iterable[str]) -> dict[str, Path]:
        """Run → its file, for those of these runs that have one."""
        return {run: path for run in runs if (path := self.path(label, run)).is_file()}

    def path(self, label: Path, run: str) -> Path:
        return label / self.folder / f"{run}{self.suffix}"
