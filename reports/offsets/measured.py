"""What was measured of one model, read back from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import SuiteError

if TYPE_CHECKING:
    import pandas as pd


class MeasuredError(SuiteError):
    """Files of a measurement that are missing or damaged."""


@dataclass(frozen=True)
class Measured:
    """statistics: a row per layer, direction and scope; histograms: a row per layer, direction and bin;
    overlays: images uint8 [N, h, w, 3], indices [N], map [2], queries [Q, 2], horizontal and vertical [N, Q, R]."""

    about: dict[str, Any]
    statistics: pd.DataFrame
    histograms: pd.DataFrame
    overlays: dict[str, Any]

    @property
    def layers(self) -> list[str]:
        return [layer["layer"] for layer in self.about["layers"]]


def read(folder: Path) -> Measured:
    """Raises MeasuredError naming the file that cannot be read."""
    import numpy as np
    import pandas as pd

    name = "about.json"
    try:
        about = json.loads((folder / name).read_text())
        name = "statistics.csv"
        statistics = pd.read_csv(folder / name)
        name = "histograms.csv"
        histograms = pd.read_csv(folder / name)
        name = "overlays.npz"
        with np.load(folder / name, allow_pickle=False) as file:
            overlays = {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise MeasuredError(f"{folder / name} cannot be read ({error}); --fresh measures again") from None
    return Measured(about, statistics, histograms, overlays)
