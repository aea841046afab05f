"""Images of a scene: true and false colour, masks, the tiles' fates."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from pipeline.qa.quality import Fates, Pixels, Preview
from pipeline.qa.words import reason_in_words, spaced
from storage.schema import TILE_SIZE

LOOK: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee")
"""Of the representative pixels, in their order."""
MASK_COLOURS = {
    "cloud": "#cc3311", "cirrus": "#ee7733", "snow": "#0077bb", "water": "#0077bb",
    "shadow": "#ff55cc", "saturated": "#cc3311",
}  # fmt: skip
FATE_COLOURS = {
    "": "#228833", "split_border": "#ccbb44", "nodata": "#777777", "no_place": "#222222",
    "cloud_fraction": "#ee6677", "saturated_fraction": "#aa3377",
}  # fmt: skip
_MORE_COLOURS = ("#66ccee", "#ee7733", "#0077bb", "#bbbbbb")
TRUE, FALSE = ("red", "green", "blue"), ("nir", "red", "green")
_WIDTH = 10.5
"""Of a figure [in]."""
_HIGHEST = 9.0
"""Of one image [in]."""


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def quicklooks(preview: Preview, pixels: Pixels) -> bytes:
    """Show the scene in true and false colour, the representative pixels numbered in both."""
    with mpl.rc_context(LOOK):
        figure, axes = _panels(preview, 2, columns=2)
        for axis, bands, title in zip(
            axes, (TRUE, FALSE), ("true colour", "false colour"), strict=True
        ):
            nm = ", ".join(f"{preview.wavelength[band]:.0f}" for band in bands)
            _show(axis, colour(preview, bands), preview)
            axis.set_title(f"{title}: {nm} nm")
            _mark(axis, pixels, preview.shape)
        return png(figure)


def masks(preview: Preview, valid: float, share: Mapping[str, float]) -> bytes:
    """Show where each mask holds, over a grey image; `valid` and `share` of the pixels [1]."""
    grey = _grey(preview)
    named = {"valid": (preview.valid, "#228833", f"{valid:.1%} of all pixels")}
    for name, mask in preview.masks.items():
        color = MASK_COLOURS.get(name, "#cc3311")
        named[name] = (mask, color, f"{share[name]:.2%} of valid")
    with mpl.rc_context(LOOK):
        figure, axes = _panels(preview, len(named), columns=4)
        for axis, (name, (mask, color, words)) in zip(axes, named.items(), strict=True):
            image = grey.copy()
            fade = 0.5 if name == "valid" else 0.1
            rgb = np.array(mpl.colors.to_rgb(color)) * 255
            image[mask] = (fade * image[mask] + (1 - fade) * rgb).astype("uint8")
            _show(axis, image, preview)
            axis.set_title(f"{spaced(name)}\n{words}")
        return png(figure)


def fates(preview: Preview, found: Fates) -> bytes:
    """Show what became of each window, over the true colours."""
    reasons = dict.fromkeys(["", *np.unique(found.reason).tolist()])
    spare = iter(_MORE_COLOURS * 8)
    colours = {reason: FATE_COLOURS.get(reason) or next(spare) for reason in reasons}
    with mpl.rc_context(LOOK):
        figure, axes = _panels(preview, 1, columns=1)
        axis = axes[0]
        _show(axis, (_picture(preview) * 0.8 + 255 * 0.2).astype("uint8"), preview)
        for row, col, reason in zip(found.row, found.col, found.reason.tolist(), strict=True):
            # Half a pixel inside, so that neighbours do not hide each other's frame.
            axis.add_patch(Rectangle(
                (col + 1, row + 1), TILE_SIZE - 2, TILE_SIZE - 2, linewidth=0.8,
                edgecolor=colours[reason], facecolor=(*mpl.colors.to_rgb(colours[reason]), 0.3),
            ))  # fmt: skip
        counts = {"": found.counts["kept"], **found.counts["rejected"]}
        handles = [
            Patch(color=colours[r], label=f"{reason_in_words(r)} ({counts.get(r, 0)})")
            for r in reasons
        ]
        axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        return png(figure)


def colour(preview: Preview, bands: Sequence[str]) -> NDArray[np.uint8]:
    """Return three bands (y, x, 3), each stretched to its own 2-98 %; white where not measured."""
    image = np.stack([stretched(preview.images[band]) for band in bands], axis=-1)
    image[~np.isfinite(image).all(axis=-1)] = 1
    return (255 * image).astype("uint8")


def stretched(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image (y, x) in 0..1, from its 2 % to its 98 %; NaN stays."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
    return np.clip((image - low) / max(float(high - low), 1e-12), 0, 1)


def has(preview: Preview, bands: Sequence[str]) -> bool:
    """Say whether the preview has these bands."""
    return set(bands) <= set(preview.images)


def _picture(preview: Preview) -> NDArray[np.uint8]:
    return colour(preview, TRUE) if has(preview, TRUE) else _grey(preview)


def _grey(preview: Preview) -> NDArray[np.uint8]:
    for name in ("red", *preview.images):
        if name in preview.images:
            return colour(preview, (name,) * 3)
    flat: NDArray[np.uint8] = np.where(preview.valid[..., None], 200, 255).astype("uint8")
    return np.repeat(flat, 3, axis=2)


def _panels(preview: Preview, number: int, *, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `number` axes for images of the scene's proportions."""
    rows, cols = preview.shape
    columns = min(columns, number)
    lines = -(-number // columns)
    width = min(_WIDTH / max(columns, 2), _HIGHEST * cols / rows)
    height = width * rows / cols
    figure = Figure(figsize=(columns * (width + 0.5), lines * (height + 1.1)), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    axes = list(grid.ravel())
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]


def _show(axis: Axes, image: NDArray[Any], preview: Preview) -> None:
    """Draw an image on the scene's own pixel grid."""
    rows, cols = image.shape[0] * preview.step, image.shape[1] * preview.step
    axis.imshow(image, extent=(0, cols, rows, 0), interpolation="nearest")
    axis.set(xlim=(0, preview.shape[1]), ylim=(preview.shape[0], 0))
    axis.set(xlabel="column [pixel]", ylabel="row [pixel]")
    axis.locator_params(nbins=5)


def _mark(axis: Axes, pixels: Pixels, shape: tuple[int, int]) -> None:
    for i, (row, col) in enumerate(zip(pixels.row.tolist(), pixels.col.tolist(), strict=True)):
        color = COLOURS[i % len(COLOURS)]
        axis.plot(col + 0.5, row + 0.5, "o", ms=5, color=color, mec="white", mew=1)
        # Inwards, so that no number is cut off.
        right, down = -1 if col > 0.9 * shape[1] else 1, -1 if row < 0.1 * shape[0] else 1
        axis.annotate(
            str(i + 1), (col + 0.5, row + 0.5), xytext=(7 * right, 7 * down),
            textcoords="offset points", ha="center", va="center", fontsize=8, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": color, "alpha": 0.9},
        )  # fmt: skip
