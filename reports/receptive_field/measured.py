"""The measured receptive field of one network, read back from its folder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.run_folders.measurement_file import OF_TRAINED, MeasuredError, need

if TYPE_CHECKING:
    import numpy as np

ABOUT, MAPS = "about.json", "maps.npz"
STATES = {"before": "fresh", "after": "trained"}  # names of the maps → words
DIRECTIONS = ("horizontal", "vertical", "any")
SHARES = (50, 90)  # per cent of the gradient
NEEDED: Mapping[str, type] = {
    **dict.fromkeys(("name", "dataset", "split", "experiment", "model", "weights_sha256"), str),
    **dict.fromkeys(("code_fingerprint", "data_fingerprint"), str),
    **{"images": int, "seed": int, "image_size": list, "map": list, "curve": list, "trained": dict, "files": dict},
}


@dataclass(frozen=True)
class MeasuredField:
    """maps: by state, the share of each pixel in the gradient, float32 [H, W], summing to 1."""

    about: dict[str, Any]
    maps: dict[str, np.ndarray]

    def radius(self, state: str, direction: str, share: float) -> float:
        """The distance in px from the centre token within which so many per cent of the gradient lie.

        Along one direction distances are those to the centre's column or row, whatever the other coordinate is.
        """
        import numpy as np

        distances, mass = self.by_distance(state, direction)
        return float(distances[np.searchsorted(mass, share / 100 - 1e-6)])

    def by_distance(self, state: str, direction: str) -> tuple[np.ndarray, np.ndarray]:
        """Distances in px, ascending, and the share of the gradient within each."""
        import numpy as np

        shares = self.maps[state].astype(np.float64)
        down, right = self._from_centre(shares.shape)
        by = {"horizontal": right[None, :] + 0 * down[:, None], "vertical": down[:, None] + 0 * right[None, :]}
        by["any"] = np.hypot(down[:, None], right[None, :])
        distances, place = np.unique(by[direction].round(6), return_inverse=True)
        mass = np.cumsum(np.bincount(place.ravel(), shares.ravel()))
        return distances, mass / mass[-1]

    def _from_centre(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Distances of the middles of rows and columns of pixels to the middle of the centre token."""
        import numpy as np

        axes = []
        for pixels, tokens in zip(size, self.about["map"]):
            middle = (tokens // 2 + 0.5) * pixels / tokens
            axes.append(np.abs(np.arange(pixels) + 0.5 - middle))
        return axes[0], axes[1]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The radii, a row per state and direction."""
        for state in self.maps:
            for direction in DIRECTIONS:
                radii = {f"radius_{share}": self.radius(state, direction, share) for share in SHARES}
                yield {"state": STATES[state], "direction": direction, **radii}


def read(folder: Path) -> MeasuredField:
    """Raises MeasuredError, which names the file that cannot be read or whose hash differs."""
    import numpy as np

    name = ABOUT
    try:
        about = json.loads((folder / name).read_text())
        need("it", about, NEEDED)
        need("trained", about["trained"], OF_TRAINED)
        need("files", about["files"], {MAPS: str})
        name = MAPS
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != about["files"][name]:
            raise ValueError(f"its SHA-256 is not the one in {ABOUT}")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            maps = {state: file[state] for state in STATES if state in file.files}
        if not maps or any(each.ndim != 2 or not each.sum() > 0 for each in maps.values()):
            raise ValueError("it has no map")
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        raise MeasuredError(f"{folder / name} cannot be read ({error}); --fresh measures again") from None
    return MeasuredField(about, maps)
