"""The picture of what a masked autoencoder was shown, hid and predicted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hypersigma.data import Inputs
from hypersigma.mae import Mae

PICTURE_SEED = 0
PICTURE_FILE = "reconstruction.png"
COLOURS = "viridis"
ENLARGED = 3


@dataclass(frozen=True)
class Shown:
    """A tile as a masked autoencoder saw it, each (band, y, x), in units of the inputs."""

    true: np.ndarray
    predicted: np.ndarray
    hidden: np.ndarray
    """bool"""
    wavelength: np.ndarray
    """[nm] (band)"""

    @property
    def band(self) -> int:
        """Return the first band of which something is hidden."""
        return int(self.hidden.reshape(len(self.hidden), -1).any(axis=1).argmax())

    @property
    def pixel(self) -> tuple[int, int]:
        """Return the middle one of that band's hidden pixels, row and column."""
        hidden = np.argwhere(self.hidden[self.band])
        row, column = hidden[len(hidden) // 2].tolist()
        return row, column

    @property
    def images(self) -> list[np.ndarray]:
        """Return that band: true, as it was shown (NaN where hidden), and predicted."""
        true = self.true[self.band]
        return [true, np.where(self.hidden[self.band], np.nan, true), self.predicted[self.band]]

    @property
    def limits(self) -> tuple[float, float]:
        """Return what is dark and what is bright."""
        low, high = np.percentile(self.true[self.band], (2, 98)).tolist()
        return low, high


def shown(model: Mae, batch: Inputs, count: int) -> list[Shown]:
    """Let a model see a batch's first tiles, at most `count`, hidden in the same way each time."""
    model.eval()
    rng = torch.Generator().manual_seed(PICTURE_SEED)
    with torch.inference_mode():
        out = model(batch.x, batch.wavelength, valid_BHW=batch.valid, generator=rng)
    hidden_BLV = out.mask[..., None].expand_as(out.target)
    images = [
        model.unpatchify(values[:count]).cpu().numpy()
        for values in (out.unscaled(out.target).float(), out.unscaled(out.prediction).float(),
                       hidden_BLV)
    ]  # fmt: skip
    return [
        Shown(*one) for one in zip(*images, batch.wavelength[:count].cpu().numpy(), strict=True)
    ]


def draw_reconstruction(run: Path, tile: Shown) -> None:
    """Draw a tile into `reconstruction.png`.

    Left to right: a band that was hidden, what the model was shown of it, what it predicted, and
    the spectrum of a hidden pixel, true and predicted.
    """
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.6))
    titles = (f"band {tile.band + 1} of the window", "shown", "predicted")
    low, high = tile.limits
    for axis, title, image in zip(axes, titles, tile.images, strict=False):
        axis.imshow(image, vmin=low, vmax=high, cmap=COLOURS)
        axis.set_title(title)
        axis.set_axis_off()
    _draw_spectrum(axes[3], tile)
    figure.savefig(run / PICTURE_FILE, dpi=110)


def strip(tile: Shown) -> np.ndarray:
    """Return the same three images side by side, (y, x, 3) [0-1]; hidden is white."""
    low, high = tile.limits
    scaled = (np.hstack(tile.images) - low) / max(high - low, 1e-12)
    colours = colormaps[COLOURS](np.ma.masked_invalid(scaled))[..., :3]
    colours[np.isnan(scaled)] = 1
    return np.asarray(colours.repeat(ENLARGED, 0).repeat(ENLARGED, 1))


def spectrum(tile: Shown) -> np.ndarray:
    """Return the spectrum of a hidden pixel as a picture (y, x, 3) [0-1]."""
    figure = Figure(figsize=(6, 3.2))
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.16, top=0.9)
    _draw_spectrum(figure.add_subplot(), tile)
    return pixels(figure)


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as pixels (y, x, 3) [0-1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return rgba[..., :3] / 255


def _draw_spectrum(axis: Axes, tile: Shown) -> None:
    row, column = tile.pixel
    axis.plot(tile.wavelength, tile.true[:, row, column], label="true")
    axis.plot(tile.wavelength, tile.predicted[:, row, column], label="predicted")
    axis.set(xlabel="wavelength [nm]", ylabel="input value", title="one hidden pixel")
    axis.legend()
