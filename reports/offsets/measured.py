"""The measurement of one model, read back from its folder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.run_folders.measurement_file import OF_TRAINED, MeasuredError, need

if TYPE_CHECKING:
    import pandas as pd


ABOUT, FILES = "about.json", ("statistics.csv", "histograms.csv", "overlays.npz")
NEEDED: Mapping[str, type] = {
    **dict.fromkeys(("name", "dataset", "split", "data_fingerprint", "experiment", "model", "offsets"), str),
    **dict.fromkeys(("overlay_layer", "weights", "weights_sha256", "code_fingerprint"), str),
    **{"images": int, "image_size": list, "layers": list, "trained": dict, "files": dict},
}
OF_LAYER = {"layer": str, "map": list, "stride": int}


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
    """Raises MeasuredError, which names the file that cannot be read or whose hash differs."""
    import numpy as np
    import pandas as pd

    name = ABOUT
    try:
        about = json.loads((folder / name).read_text())
        _check(about)
        contents = {}
        for name in FILES:
            contents[name] = (folder / name).read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != about["files"][name]:
                raise ValueError(f"its SHA-256 is not the one in {ABOUT}")
        name = "statistics.csv"
        statistics = pd.read_csv(io.BytesIO(contents[name]))
        name = "histograms.csv"
        histograms = pd.read_csv(io.BytesIO(contents[name]))
        name = "overlays.npz"
        with np.load(io.BytesIO(contents[name]), allow_pickle=False) as file:
            overlays = {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        raise MeasuredError(f"{folder / name} cannot be read ({error}); --fresh measures again") from None
    return Measured(about, statistics, histograms, overlays)


def _check(about: Any) -> None:
    """Raises ValueError where a page would miss something in ``about.json``."""
    need("it", about, NEEDED)
    need("trained", about["trained"], OF_TRAINED)
    need("files", about["files"], dict.fromkeys(FILES, str))
    for number, layer in enumerate(about["layers"], 1):
        need(f"layer {number}", layer, OF_LAYER)
    for size in (about["image_size"], *(layer["map"] for layer in about["layers"])):
        if len(size) != 2 or not all(type(number) is int for number in size):
            raise ValueError(f"{size} is not a size")
    if about["overlay_layer"] not in [layer["layer"] for layer in about["layers"]]:
        raise ValueError(f"its overlay_layer {about['overlay_layer']} is not among its layers")
