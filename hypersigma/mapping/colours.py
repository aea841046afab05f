"""Colours of classes, and pictures of maps.

Shape letters: k bands of a map, n rows, W columns.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

COLOURS = (
    (0, 90, 181), (17, 119, 51), (221, 204, 119), (204, 102, 119), (136, 204, 238),
    (170, 68, 153), (153, 153, 51), (136, 34, 85), (68, 170, 153), (102, 51, 0),
    (230, 159, 0), (213, 94, 0), (0, 158, 115), (240, 228, 66), (86, 180, 233),
    (204, 121, 167), (51, 34, 136), (153, 79, 0), (100, 100, 100), (180, 180, 180),
)  # fmt: skip
"""Red, green, blue of class 1, 2, ...; told apart by colour-blind readers as far as that goes."""
PREVIEW_PIXELS = 1200
"""Longest side of a preview's image."""
MOST_SHOWN = 6
"""Bands of a map that a preview shows."""


def bands_shown(count: int) -> list[int]:
    """Return which bands of so many a preview shows, from 0: evenly chosen, the first and last."""
    return np.linspace(0, count - 1, min(count, MOST_SHOWN)).round().astype(int).tolist()


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of class `number`, counted from 1; after 20 classes they come again."""
    return COLOURS[(number - 1) % len(COLOURS)]


def preview_step(height: int, width: int) -> int:
    """Return which rows and columns of a map its preview shows: every so many."""
    return max(1, math.ceil(max(height, width) / PREVIEW_PIXELS))


def draw_classes(path: Path, labels_nW: NDArray[np.integer], names: list[str], title: str) -> None:
    """Draw a map of classes, 0 where there is none, with its legend as PNG."""
    palette = np.array([(255, 255, 255), *(colour(n) for n in range(1, len(names) + 1))])
    figure = _figure(labels_nW.shape, 1, 2.4)
    axis = figure.subplots()
    axis.imshow(palette.astype(np.uint8)[labels_nW], interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    patches = [
        Patch(color=tuple(palette[number] / 255), label=name)
        for number, name in enumerate(names, start=1)
    ]
    axis.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def draw_numbers(path: Path, maps_knW: NDArray[np.floating], names: list[str], title: str) -> None:
    """Draw the bands of a map of numbers, NaN where there is none, side by side as PNG.

    Each from its 1st to its 99th percentile.
    """
    figure = _figure(maps_knW.shape[1:], len(maps_knW), 0.8)
    for axis, image_nW, name in zip(
        figure.subplots(1, len(maps_knW), squeeze=False)[0], maps_knW, names, strict=True
    ):
        known = image_nW[np.isfinite(image_nW)]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        drawn = axis.imshow(image_nW, vmin=low, vmax=high, cmap="viridis")
        axis.set_title(name, fontsize=8)
        axis.set_axis_off()
        figure.colorbar(drawn, ax=axis, shrink=0.7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _figure(sides: tuple[int, ...], count: int, beside: float) -> Figure:
    height, width = sides
    tall, wide = (max(8 * side / max(height, width), 2.4) for side in (height, width))
    if count > 1:
        tall, wide = tall / 2, wide / 2
    return Figure(figsize=(count * (wide + beside), tall + 0.5))
