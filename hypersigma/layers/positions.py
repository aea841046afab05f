"""Where a token is: sine-cosine tables, and the resampling of weights to another size.

Shape letters: L tokens = h * w, D width, C bands, B batch, O outputs, I inputs, P pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST_PERIOD = 20.0
"""[nm] About two bands of Hyperion."""

LONGEST_PERIOD = 10_000.0
"""[nm] About four times the range 400-2500 nm, so that the slowest wave has no repeat in it."""


def sincos_2d(dim: int, grid: tuple[int, int]) -> Tensor:
    """Return the fixed 2-D table (1, L, dim): sin x, cos x, sin y, cos y of column x and row y.

    Raises:
        ValueError: `dim` is not a multiple of 4.

    Source: He et al. 2022, arXiv:2111.06377; waves of Vaswani et al. 2017, arXiv:1706.03762, 3.5.
    """
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4 for a 2-D sine-cosine table, got {dim}")
    rate = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    angles = [axis.flatten()[:, None] * rate for axis in (x, y)]
    return torch.cat([wave(a) for a in angles for wave in (torch.sin, torch.cos)], 1).float()[None]


def sincos_wavelength(wavelength_BC: Tensor, dim: int) -> Tensor:
    """Return (B, C, dim) sines and cosines of the wavelength [nm], periods 20 nm to 10 um.

    Raises:
        ValueError: `dim` is odd.
    """
    if dim % 2:
        raise ValueError(f"dim must be even for a sine-cosine table, got {dim}")
    steps = torch.arange(dim // 2, device=wavelength_BC.device) / max(dim // 2 - 1, 1)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** steps
    angle = wavelength_BC.float()[..., None] * (2 * math.pi / period)
    return torch.cat((angle.sin(), angle.cos()), -1)


def window_positions(wavelength_BC: Tensor | None, like_1LD: Tensor) -> Tensor:
    """Return (B, 1, D) that tells one window of bands from another by its first and last band.

    0 if there are no wavelengths. Windows begin anywhere in a sensor's bands: without this a
    patch's values do not say which bands they are of.
    """
    if wavelength_BC is None:
        return like_1LD.new_zeros(1, 1, 1)
    ends_B2 = wavelength_BC[:, [0, -1]]
    return sincos_wavelength(ends_B2, like_1LD.shape[-1] // 2).flatten(1)[:, None]


def resample_positions(pos_1LD: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return a learnt position table on a grid of another size, bicubic, (1, L', D)."""
    pos_1Dhw = pos_1LD.transpose(1, 2).unflatten(2, old)
    out = F.interpolate(pos_1Dhw, size=new, mode="bicubic", align_corners=False)
    return out.flatten(2).transpose(1, 2)


def resize_kernel(weight_OIhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Return kernels of another size that answer alike to the same picture at that size.

    Bicubic, without aliasing, times the ratio of the areas: sums, and so the answer to a constant
    picture, stay nearly as they are.
    """
    old = weight_OIhw.shape[2] * weight_OIhw.shape[3]
    out = F.interpolate(weight_OIhw, size=size, mode="bicubic", antialias=True)
    return out * (old / (size[0] * size[1]))


def resize_map(weight_OP: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a linear map of square pictures for pictures of another size (O, P)."""
    side = math.isqrt(weight_OP.shape[1])
    if size == (side, side):
        return weight_OP
    return resize_kernel(weight_OP.unflatten(1, (1, side, side)), size).flatten(1)


def resample_bands(weight_OIhw: Tensor, bands: int) -> Tensor:
    """Return kernels for another number of input bands, by the mean over each new band's share.

    Times the ratio of the band counts, so that the answer to a flat spectrum stays. Knows no
    wavelengths: first band falls on first band, last on last.
    """
    old = weight_OIhw.shape[1]
    if old == bands:
        return weight_OIhw
    pooled = F.adaptive_avg_pool1d(weight_OIhw.flatten(2).transpose(1, 2), bands)
    return pooled.transpose(1, 2).unflatten(2, weight_OIhw.shape[2:]) * (old / bands)
