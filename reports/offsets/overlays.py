"""Where a query token reads, laid over the image (AAAI Fig. 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.offsets.measured import Measured

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PANEL = 1.75  # inches, width of a square image
LINE = 0.19  # inches, of the legend
FADE, GREYED = 0.4, 0.6  # how far the image is faded to white and to grey below the circles
FAINTEST = 0.18  # opacity of a place that hardly any channel reads
ARROWS = {"horizontal": "→ ", "vertical": "↓ ", "joint": ""}
COLOURS = {"horizontal": "#f28e00", "vertical": "#1255cc", "joint": "#c2185b"}


def draw(measured: Measured) -> tuple[Any, pd.DataFrame, str, str]:
    """The figure (a row per image, a column per query), its data, title and caption."""
    import pandas as pd

    overlays, about = measured.overlays, measured.about
    pictures, queries = len(overlays["images"]), len(overlays["queries"])
    height, width = overlays["images"].shape[1:3]
    panel = PANEL * min(1.6, max(1.0, width / height))
    tall, below = panel * height / width, 0.22
    joint = about["offsets"] == "joint"
    key = LINE * (1 if joint else 2)
    whole = pictures * (tall + below) + key
    canvas = style.new_figure(queries * panel * 1.05, whole)
    grid = canvas.subplots(pictures, queries, squeeze=False)
    chosen = measured.statistics["layer"] == about["overlay_layer"]
    sharing = int(measured.statistics.loc[chosen, "sharing"].iloc[0])
    rows = []
    for picture in range(pictures):
        for query in range(queries):
            places = _places(overlays, picture, query, joint)
            places["reads"] *= sharing
            _panel(grid[picture][query], overlays, picture, query, places, 72 * panel)
            rows.append(places.assign(image=int(overlays["indices"][picture]), query=query))
    canvas.subplots_adjust(left=0, right=1, top=1, bottom=(below + key) / whole, wspace=0.05, hspace=below / tall)
    _legend(canvas, ["joint"] if joint else list(ARROWS)[:2])
    colours = "" if joint else ", orange along the row and blue along the column"
    beyond = "" if joint else ", along the row (→) and the column (↓)"
    numbers = ", ".join(str(number) for number in overlays["indices"].tolist())
    caption = (
        f"Where one token (star) reads in {about['overlay_layer']}. "
        f"Circles are the tokens that its channels read{colours}; "
        "the more channels read a token, the more opaque its circle is (positions are rounded to the nearest token). "
        f"Below: reads whose position lies outside the map{beyond}. Images {numbers} of those measured, "
        f"{width} × {height} px, tokens of {_stride(measured)} px."
    )
    columns = ["image", "query", "query_row", "query_column", "direction", "row", "column", "reads", "inside"]
    return canvas, pd.concat(rows, ignore_index=True)[columns], "Sampled positions", caption


def _places(overlays: dict[str, Any], picture: int, query: int, joint: bool) -> pd.DataFrame:
    """Tokens that a query reads and by how many offsets, per direction; ``inside`` says whether the map has them."""
    import numpy as np
    import pandas as pd

    row, column = (int(number) for number in overlays["queries"][query])
    dx, dy = overlays["horizontal"][picture, query], overlays["vertical"][picture, query]
    still = np.zeros_like(dx)
    moves = {"joint": (dy, dx)} if joint else {"horizontal": (still, dx), "vertical": (dy, still)}
    size = overlays["map"]
    parts = []
    for direction, (down, right) in moves.items():
        position = np.stack([row + down, column + right], axis=1)
        inside = ((position >= 0) & (position <= size - 1)).all(axis=1)
        # half a token goes up, as in the middle of a picture's own pixels
        nearest = np.floor(position + 0.5).astype(int)
        read = pd.DataFrame({"row": nearest[:, 0], "column": nearest[:, 1], "inside": inside})
        counted = read.groupby(["row", "column", "inside"], as_index=False).size().rename(columns={"size": "reads"})
        parts.append(counted.assign(direction=direction))
    return pd.concat(parts, ignore_index=True).assign(query_row=row, query_column=column)


def _panel(axes: Axes, overlays: dict[str, Any], picture: int, query: int, places: pd.DataFrame, points: float) -> None:
    """points: width of the panel."""
    image = overlays["images"][picture].astype(float) / 255
    height, width = image.shape[:2]
    rows, columns = overlays["map"]
    image += (image @ [[0.299], [0.587], [0.114]] - image) * GREYED
    axes.imshow(image + (1 - image) * FADE, extent=(0, width, height, 0), interpolation="nearest")
    step_y, step_x = height / rows, width / columns
    diameter = 0.72 * points * min(step_x / width, step_y / height)
    most = places["reads"].max()
    places_inside: list[dict[str, Any]] = places[places["inside"]].to_dict("records")  # type: ignore[assignment]
    for place in places_inside:
        opacity = min(1.0, FAINTEST + (1 - FAINTEST) * place["reads"] / most)
        axes.plot(
            (place["column"] + 0.5) * step_x, (place["row"] + 0.5) * step_y, "o", markersize=diameter,
            markerfacecolor=(COLOURS[place["direction"]], opacity), markeredgecolor=("black", 0.75),
            markeredgewidth=0.5,
        )  # fmt: skip
    row, column = overlays["queries"][query]
    axes.plot(
        (column + 0.5) * step_x, (row + 0.5) * step_y, "*", color="white", markersize=max(7.0, 0.85 * diameter),
        markeredgecolor="black", markeredgewidth=0.8, zorder=5,
    )  # fmt: skip
    axes.set_xlabel(f"outside: {_outside(places)}", fontsize=7, labelpad=2, color=style.GREY)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bdbdbd", linewidth=0.6)


def _legend(canvas: Any, directions: list[str]) -> None:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "black", "markeredgewidth": 0.6}
    words = {"horizontal": "read along the row (→)", "vertical": "read along the column (↓)", "joint": "read"}
    handles = [Line2D([], [], marker="*", markersize=9, color="white", label="token that reads", **look)]
    handles += [Line2D([], [], marker="o", color=COLOURS[each], label=words[each], **look) for each in directions]
    faint = (COLOURS[directions[0]], FAINTEST)
    handles.append(Line2D([], [], marker="o", markerfacecolor=faint, label="by few channels", **look))
    canvas.legend(
        handles=handles, loc="lower left", ncols=2 if len(directions) > 1 else 3, fontsize=7, frameon=False,
        borderpad=0, borderaxespad=0, handlelength=1.2, handletextpad=0.4, columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip


def _outside(places: pd.DataFrame) -> str:
    """``→ 3 %, ↓ 0 %``"""
    shares = []
    for direction in dict.fromkeys(places["direction"]):
        reads = places[places["direction"] == direction]
        share = 100 * reads.loc[~reads["inside"], "reads"].sum() / reads["reads"].sum()
        shares.append(f"{ARROWS[direction]}{share:.0f} %")
    return ", ".join(shares)


def _stride(measured: Measured) -> int:
    chosen = measured.about["overlay_layer"]
    return int(next(entry["stride"] for entry in measured.about["layers"] if entry["layer"] == chosen))
