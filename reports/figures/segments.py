"""An image beside its predicted segments, with a legend of the classes that were found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures import style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PANEL = 4.2  # inches, longer side of a panel
OPACITY = 0.6  # of the colour of a class over the image
MOST = 14  # classes in the legend
PER_ROW = 4


def draw(
    image: NDArray[np.uint8],
    classes: NDArray[np.int64],
    shares: Sequence[tuple[int, float]],
    names: Sequence[str],
    palette: NDArray[np.uint8],
) -> bytes:
    """A PNG. image: [h, w, 3]; classes: [h, w]; shares: class and per cent of the pixels; palette: [K, 3]."""
    with style.theme():
        return _png(_figure(image, classes, shares, names, palette))


def _figure(image: Any, classes: Any, shares: Sequence[tuple[int, float]], names: Sequence[str], palette: Any) -> Any:
    from matplotlib.patches import Patch

    height, width = classes.shape
    scale = PANEL / max(height, width)
    rows = -(-min(len(shares), MOST + 1) // PER_ROW)
    below = 0.25 * rows + 0.1
    canvas = style.new_figure(2 * width * scale + 0.1, height * scale + below)
    left, right = canvas.subplots(1, 2)
    coloured = palette[classes] / 255.0
    left.imshow(image)
    right.imshow(image / 255.0 * (1 - OPACITY) + coloured * OPACITY)
    for axes in (left, right):
        axes.set_axis_off()
    legend = [
        Patch(color=palette[number] / 255.0, label=f"{names[number]} {share:.1f} %") for number, share in shares[:MOST]
    ]
    if rest := shares[MOST:]:
        legend.append(Patch(alpha=0, label=f"and {len(rest)} more, {sum(share for _, share in rest):.1f} %"))
    canvas.subplots_adjust(left=0, right=1, top=1, bottom=below / (height * scale + below), wspace=0.02)
    canvas.legend(handles=legend, loc="lower left", ncols=PER_ROW, frameon=False, fontsize=8, borderaxespad=0.1)
    return canvas


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=style.DPI, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.04
    )
    return buffer.getvalue()
