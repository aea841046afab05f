"""Draw docs/images/models.png: what each network does with a tile, as boxes from left to right."""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path("docs/images/models.png")
DATA, LEARNT, FIXED = "#dbe9f6", "#fde3c8", "#e6e6e6"

SPATIAL = [
    ("tile\n100 x 64 x 64", DATA),
    ("64 patches\nof 8 x 8 px", DATA),
    ("16 visible\n-> D", LEARNT),
    ("+ row, column\n+ window's ends", FIXED),
    ("encoder\n12 / 24 / 32\nblocks", LEARNT),
    ("+ hidden\ntokens\n+ positions", FIXED),
    ("decoder\n8 blocks, 512", LEARNT),
    ("48 patches\n100 x 8 x 8", DATA),
]
SPECTRAL = [
    ("tile\n100 x 64 x 64", DATA),
    ("100 bands\nof 64 x 64 px", DATA),
    ("25 visible\n-> D", LEARNT),
    ("+ wavelength", FIXED),
    ("encoder\n12 / 24 / 32\nblocks", LEARNT),
    ("+ hidden\ntokens\n+ wavelength", FIXED),
    ("decoder\n8 blocks, 512", LEARNT),
    ("75 bands\n+ line between\nvisible ones", DATA),
]
FUSED = [
    ("window around\na pixel", DATA),
    ("spatial encoder\n4 levels, sampling\nattention", LEARNT),
    ("centre and mean\n-> 128 a level", LEARNT),
    ("x (1 + w)", FIXED),
    ("class, score,\nabundance, ...", LEARNT),
]
ENHANCE = [
    ("spectral encoder\n4 levels", LEARNT),
    ("tokens kept\napart -> 128", LEARNT),
    ("w in (0, 1)\na channel", LEARNT),
]


def main() -> None:
    """Write the picture."""
    figure, axes = plt.subplots(3, figsize=(13, 7.2), height_ratios=(1, 1, 1.75))
    for axis, title, boxes in (
        (axes[0], "spatial masked autoencoder: tokens are patches", SPATIAL),
        (axes[1], "spectral masked autoencoder: tokens are bands", SPECTRAL),
    ):
        _canvas(axis, title, 1)
        _chain(axis, boxes, [1.6 * n for n in range(len(boxes))], 0)
    axis = axes[2]
    _canvas(axis, "fused trunk: the spectral encoder says which spatial channels matter", 2.3)
    at = [0, 2.4, 5.0, 7.6, 10.2]
    _chain(axis, FUSED, at, 1.3)
    _chain(axis, ENHANCE, at[1:4], 0)
    _arrow(axis, (0.68, 1.05), (at[1] - 0.75, 0.2))
    _arrow(axis, (at[3], 0.42), (at[3], 0.88))
    _arrow(axis, (at[2], -0.4), (at[2], -0.6), (at[4], -0.6), (at[4], 0.9))
    figure.tight_layout()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=110)


def _canvas(axis: Axes, title: str, height: float) -> None:
    axis.set_xlim(-0.9, 12.1)
    axis.set_ylim(-0.7, height - 0.4)
    axis.set_axis_off()
    axis.set_title(title, loc="left", fontsize=12)


def _chain(axis: Axes, boxes: list[tuple[str, str]], at: list[float], y: float) -> None:
    for x, (text, colour) in zip(at, boxes, strict=True):
        shape = FancyBboxPatch((x - 0.66, y - 0.36), 1.32, 0.72, boxstyle="round,pad=0.02",
                               facecolor=colour, edgecolor="#555555")  # fmt: skip
        axis.add_patch(shape)
        axis.text(x, y, text, ha="center", va="center", fontsize=8.5)
    for left, right in itertools.pairwise(at):
        _arrow(axis, (left + 0.68, y), (right - 0.68, y))


def _arrow(axis: Axes, *places: tuple[float, float]) -> None:
    for start, end in itertools.pairwise(places):
        arrow = FancyArrowPatch(
            start, end, arrowstyle="-|>" if end == places[-1] else "-", mutation_scale=11,
            shrinkA=0, shrinkB=0, color="#555555",
        )  # fmt: skip
        axis.add_patch(arrow)


if __name__ == "__main__":
    main()
