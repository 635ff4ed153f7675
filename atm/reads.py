"""Where a model reads: the offsets of its layers as arrays, and a picture of what one token reads."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atm.offsets import OffsetLayer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"along the row": "#f28e00", "along the column": "#1255cc", "both": "#c2185b"}
FAINTEST = 0.18  # opacity of a token that hardly any channel reads


@dataclass(frozen=True, eq=False)
class LayerOffsets:
    """The offsets that one layer gave for a batch, in tokens.

    horizontal, vertical: float32 [B, H, W, samples, groups], positive to the right and downwards. Group g moves the
    neighbouring channels from ``g * channels / groups`` on, ``channels / groups`` of them.
    joint: each read is moved by both numbers at once. Otherwise one branch of the mixer reads along the row, at
    ``(row, column + horizontal)``, and another along the column, at ``(row + vertical, column)``.
    channels: of the map that is read.
    """

    horizontal: NDArray[np.float32]
    vertical: NDArray[np.float32]
    joint: bool
    channels: int

    def positions(self, image: int, row: int, column: int) -> dict[str, NDArray[np.float32]]:
        """Where the token at ``row``, ``column`` of an image reads: branch → float32 [samples, groups, 2], rows and
        columns of the map, which may lie outside of it. Branches are "along the row" and "along the column", or "both".
        """
        right, down = self.horizontal[image, row, column], self.vertical[image, row, column]
        still = np.zeros_like(right)
        moves = {"both": (down, right)} if self.joint else {
            "along the row": (still, right), "along the column": (down, still)
        }  # fmt: skip
        return {branch: np.stack([row + y, column + x], axis=-1) for branch, (y, x) in moves.items()}


def read_offsets(model: nn.Module, *inputs: Any) -> dict[str, LayerOffsets]:
    """Calls ``model(*inputs)`` in evaluation mode and returns the offsets of all its layers, by their module paths.

    model: ATMNet, or any module that contains it or layers of it; it is not changed. A block that has no layer of its
    own reads with the offsets of the last one before it in its stage. Of a layer that is called several times, the
    offsets of its last call are returned. Raises ValueError for a model without offsets.
    """
    layers = dict(_offset_layers(model))
    if not layers:
        raise ValueError("this model has no offsets: no layer of it is an atm.offsets.OffsetLayer")
    given: dict[str, Tensor] = {}
    training = {module: module.training for module in model.modules()}
    with ExitStack() as undo:
        for path, (layer, _) in layers.items():

            def keep(module: nn.Module, args: Any, output: Tensor, path: str = path) -> None:
                given[path] = output.detach().float().cpu()

            undo.callback(layer.register_forward_hook(keep).remove)
        for module, mode in training.items():
            undo.callback(setattr, module, "training", mode)
        with torch.no_grad():
            model.eval()(*inputs)
    return {path: _by_direction(given[path], *layers[path]) for path in layers if path in given}


def draw_reads(
    image: NDArray[Any], offsets: LayerOffsets, row: int, column: int, batch: int = 0, axes: "Axes | None" = None
) -> "Axes":
    """Draws the tokens that one token (star) reads over an image; the more channels read one, the more opaque it is.

    image: [height, width, 3], of any size, as matplotlib shows it; row, column: of the token in the map; batch: number
    of the image in the batch. Positions are rounded to the nearest token, and those outside the map are not shown.
    axes: None for new ones. Needs matplotlib. Raises IndexError for a token that the map does not have.
    """
    from matplotlib import pyplot

    rows, columns = offsets.horizontal.shape[1:3]
    if not (0 <= row < rows and 0 <= column < columns):
        raise IndexError(f"row {row}, column {column}: the map has {rows} rows and {columns} columns")
    axes = pyplot.subplots()[1] if axes is None else axes
    axes.imshow(image, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), alpha=0.6)
    for branch, places in offsets.positions(batch, row, column).items():
        nearest = np.floor(places.reshape(-1, 2) + 0.5).astype(int)
        inside = nearest[((nearest >= 0) & (nearest < (rows, columns))).all(axis=1)]
        tokens, counts = np.unique(inside, axis=0, return_counts=True)
        if not len(tokens):  # all are outside
            continue
        opacity = FAINTEST + (1 - FAINTEST) * counts / counts.max()
        axes.scatter(
            tokens[:, 1], tokens[:, 0], alpha=opacity, color=COLOURS[branch], edgecolors="black", linewidths=0.5,
            label=branch,
        )  # fmt: skip
    axes.plot(column, row, "*", color="white", markeredgecolor="black", markersize=12)
    axes.set_axis_off()
    return axes


def _offset_layers(model: nn.Module) -> Iterator[tuple[str, tuple[OffsetLayer, bool]]]:
    """Module path → the layer, and whether the mixer beside it reads with both directions at once."""
    for path, owner in model.named_modules():
        layer = getattr(owner, "offsets", None)
        if isinstance(layer, OffsetLayer):
            joint = bool(getattr(getattr(owner, "mixer", None), "joint", False))
            yield f"{path}.offsets" if path else "offsets", (layer, joint)


def _by_direction(given: Tensor, layer: OffsetLayer, joint: bool) -> LayerOffsets:
    """given: [B, H, W, 2 * samples * groups], horizontal half first."""
    halves = given.unflatten(-1, (2, layer.samples, layer.groups)).unbind(3)
    horizontal, vertical = (half.contiguous().numpy() for half in halves)
    return LayerOffsets(horizontal, vertical, joint, layer.dim)
