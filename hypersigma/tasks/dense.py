"""A trunk that says something of every pixel of a window, and blended windows for whole images.

Shape letters: B batch, C bands, H W pixels, w window side, p patch side, L patches of a window,
D width, R reduced width, K maps.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.tasks.task import Facts, TaskConfig, positions_nm
from hypersigma.tasks.trunk import REDUCED, Trunk, build_encoders

FEATURES = 2 * REDUCED
"""Channels that a dense trunk gives of each pixel: its own spectrum's and its surroundings'."""
PIXELS_AT_A_TIME = 2 * 64**2
"""Of windows that are looked at together: with four times as many, a CPU core takes 1.4 times as
long for each, and a map of 242 bands a fifth more memory."""


class DenseTrunk(Trunk):
    """Features of every pixel, (B, C, w, w) -> (B, 2 R, w, w).

    The first half comes from the pixel's own spectrum. The second from the encoders, at the grid of
    patches, brought to pixels by interpolation: the levels of the spatial encoder, which sees the
    window, and what the spectral encoder sees in each cell of it, which also scales these levels
    (see `Trunk.enhance`), here patch by patch.

    Args:
        facts: Bands and wavelengths.
        config: Encoders, patches and cells.
        window: Side w [pixel].

    Raises:
        ValueError: Cells that are not made of whole patches, or windows not made of whole cells.
    """

    def __init__(self, facts: Facts, config: TaskConfig, window: int) -> None:
        cell = config.cell_size or config.patch_size
        spatial, spectral = build_encoders(
            config.mode, config.size, in_chans=facts.bands, spatial_size=window,
            spectral_size=cell, patch_size=config.patch_size, ssa=config.ssa,
            recompute=config.train.recompute,
        )  # fmt: skip
        super().__init__(spatial=spatial, spectral=spectral)
        # Side of a cell, and of what has a token on the grid of patches.
        self.cell, self.patch = cell, cell if spatial is None else config.patch_size
        if spectral is not None and cell % self.patch:
            raise ValueError(
                f"expected cells of whole {self.patch} px patches, got {cell} px; make `cell_size` "
                "a multiple of `patch_size`"
            )
        self.check_window(window, window)
        self.wavelength: Tensor
        self.register_buffer("wavelength", positions_nm(facts), persistent=False)
        self.pixel = pixel_mlp(facts.bands)
        if spatial is not None:
            self.reduce = nn.ModuleList(
                nn.Linear(spatial.size.dim, REDUCED) for _ in range(self.levels)
            )
        width = (self.levels + (spectral is not None)) * REDUCED
        self.context = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, REDUCED))

    def check_window(self, height: int, width: int) -> None:
        """Refuse windows that are not made of whole patches, or cells.

        Raises:
            ValueError: They are not.
        """
        unit = self.patch if self.spectral is None else self.cell
        if height % unit or width % unit:
            kind = "patches" if unit == self.patch else "cells"
            name = "patch_size" if unit == self.patch else "cell_size"
            raise ValueError(
                f"expected windows of whole {unit} px {kind}, got {height} x {width}; "
                f"make `window` a multiple of `{name}`"
            )

    def features(self, x_BCww: Tensor) -> Tensor:
        """Return the features (B, 2 R, w, w).

        Args:
            x_BCww: Windows of whole patches and cells, standardised.

        Raises:
            ValueError: Windows that are not made of these.
        """
        height, width = x_BCww.shape[2:]
        self.check_window(height, width)
        grid = (height // self.patch, width // self.patch)
        context_BRhw = self._context(x_BCww).transpose(1, 2).unflatten(2, grid)
        context = F.interpolate(context_BRhw, (height, width), mode="bilinear")
        own = self.pixel(x_BCww.movedim(1, -1)).movedim(-1, 1)
        return torch.cat((own, context), 1)

    def _context(self, x_BCww: Tensor) -> Tensor:
        """Return what the encoders see at each patch, (B, L, R)."""
        count, parts = len(x_BCww), list[Tensor]()
        spectrum_NR = self._spectra(x_BCww)
        if self.spatial is not None:
            pyramid = self.spatial.pyramid(x_BCww, self.wavelength[None])
            levels = [
                reduce(features.tokens).flatten(0, 1)
                for reduce, features in zip(self.reduce, pyramid, strict=True)
            ]
            parts += self.enhance(levels, spectrum_NR)
        if spectrum_NR is not None:
            parts.append(spectrum_NR)
        return self.context(torch.cat(parts, -1)).unflatten(0, (count, -1))

    def _spectra(self, x_BCww: Tensor) -> Tensor | None:
        """Return what the spectral encoder sees in the cell around each patch, (B L, R)."""
        if self.spectral is None:
            return None
        height, width = (side // self.cell for side in x_BCww.shape[2:])
        spectrum_NR = self.spectrum(cells(x_BCww, self.cell), self.wavelength[None])
        assert spectrum_NR is not None  # noqa: S101
        patches = self.cell // self.patch
        if patches == 1:
            return spectrum_NR
        spectrum_BhwR = spectrum_NR.unflatten(0, (-1, height, width))
        each = spectrum_BhwR.repeat_interleave(patches, 1).repeat_interleave(patches, 2)
        return each.flatten(0, 2)


def pixel_mlp(bands: int) -> nn.Sequential:
    """Return what makes R features of a spectrum (..., C)."""
    return nn.Sequential(
        nn.Linear(bands, REDUCED), nn.GELU(), nn.Linear(REDUCED, REDUCED), nn.LayerNorm(REDUCED)
    )


def jittered(x_BCww: Tensor, noise: float) -> Tensor:
    """Return spectra with noise of this deviation, once for all bands together, once for each."""
    return x_BCww + noise * (torch.randn_like(x_BCww[:, :1]) + torch.randn_like(x_BCww))


def cells(x_BCww: Tensor, patch_size: int) -> Tensor:
    """Return the patches as images of their own (B L, C, p, p), row by row."""
    x_BChpwp = x_BCww.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return x_BChpwp.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def blended(
    run: Callable[[Tensor], Tensor],
    image_CHW: Tensor,
    *,
    window: int,
    overlap: int,
    batch_size: int | None = None,
) -> Tensor:
    """Return what a model says of an image (K, H, W), from overlapping windows.

    Windows stand on a grid that begins in the image's corner, whatever the image's size; beyond its
    border the image is mirrored. Where they overlap their answers are averaged, each weighted by a
    triangle that is 1 in a window's middle and falls towards its sides.

    Args:
        run: From windows (B, C, w, w) to answers (B, K, w, w).
        image_CHW: The image.
        window: Side w [pixel].
        overlap: Pixels that neighbouring windows share, at most half a window.
        batch_size: Windows at a time; None: `at_a_time(window)`.

    Raises:
        ValueError: An overlap of more than half a window.
    """
    if not 0 <= overlap <= window // 2:
        raise ValueError(f"expected an overlap of 0..{window // 2} px (half a window of {window}), "
                         f"got {overlap}")  # fmt: skip
    height, width = image_CHW.shape[1:]
    rows, columns = (starts(side, window, overlap) for side in (height, width))
    weight_ww = triangle(window, overlap)
    total, weights = torch.zeros(0), torch.zeros(rows[-1] + window, columns[-1] + window)
    places = [(row, column) for row in rows for column in columns]
    for part in _parts(places, batch_size or at_a_time(window)):
        answers = run(torch.stack([cut(image_CHW, row, column, window) for row, column in part]))
        if not len(total):
            total = torch.zeros(answers.shape[1], *weights.shape)
        for (row, column), answer_Kww in zip(part, answers.float().cpu(), strict=True):
            at = (slice(row, row + window), slice(column, column + window))
            total[:, *at] += weight_ww * answer_Kww
            weights[at] += weight_ww
    return (total / weights)[:, :height, :width]


def at_a_time(window: int) -> int:
    """Return how many windows of a side [pixel] are best looked at together."""
    return max(1, PIXELS_AT_A_TIME // window**2)


def starts(side: int, window: int, overlap: int) -> list[int]:
    """Return where windows begin along a side; the last one reaches its end, or beyond."""
    return list(range(0, max(side - overlap, 1), window - overlap))


def triangle(window: int, overlap: int) -> Tensor:
    """Return weights (w, w), positive; without an overlap all are 1."""
    if not overlap:
        return torch.ones(window, window)
    side = torch.arange(window) + 0.5
    line = torch.minimum(side, window - side) / (window / 2)
    return line[:, None] * line[None]


def cut(image_CHW: Tensor, row: int, column: int, window: int) -> Tensor:
    """Return a window (C, w, w) that may reach beyond the image, which is mirrored there."""
    height, width = image_CHW.shape[-2:]
    y, x = (mirrored(np.arange(a, a + window), n) for a, n in ((row, height), (column, width)))
    return image_CHW[..., torch.from_numpy(y)[:, None], torch.from_numpy(x)[None]]


def mirrored(places: np.ndarray, side: int) -> np.ndarray:
    """Return places along a side, those beyond it mirrored at its border, as often as needed."""
    within = np.mod(places, 2 * side)
    return np.where(within < side, within, 2 * side - 1 - within)


def _parts(places: list[tuple[int, int]], count: int) -> Iterator[list[tuple[int, int]]]:
    return (places[first : first + count] for first in range(0, len(places), count))
