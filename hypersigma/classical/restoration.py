"""Denoising by low rank, and enlarging by cubic splines of four pixels.

Shape letters: C bands, H W pixels, N pixels in a row, R rank.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

type Numbers = NDArray[np.floating]


def low_rank(cube_CHW: Numbers, *, rank: int | None = None) -> NDArray[np.float64]:
    """Return an image (C, H, W) without what lies outside the subspace of its signal.

    Bands are brought to equal noise first.

    Args:
        cube_CHW: Noisy image.
        rank: Of the subspace; None: the one of the least expected error.

    Raises:
        ValueError: Values that are not finite.

    Source: Bioucas-Dias & Nascimento 2008, doi:10.1109/TGRS.2008.918089 (HySime).
    """
    if cube_CHW.ndim != 3 or not np.isfinite(cube_CHW).all():
        raise ValueError(f"expected a finite image (band, y, x), got {cube_CHW.shape}")
    x_CN = np.asarray(cube_CHW, np.float64).reshape(len(cube_CHW), -1)
    noise_CN = residual_noise(x_CN)
    level = noise_CN.std(1, keepdims=True).clip(1e-12)
    y_CN, noise_CN = x_CN / level, noise_CN / level
    power, of_noise = (t @ t.T / t.shape[1] for t in (y_CN, noise_CN))
    values, vectors = np.linalg.eigh(power)
    if rank is None:
        # A direction is kept where the signal in it is more than the noise that comes along.
        noise = ((of_noise @ vectors) * vectors).sum(0)
        rank = max(1, int((values > 2 * noise).sum()))
    basis = vectors[:, ::-1][:, :rank]
    return np.asarray((basis @ (basis.T @ y_CN) * level).reshape(cube_CHW.shape))


def residual_noise(x_CN: Numbers) -> Numbers:
    """Return what of each band the others do not tell by a linear regression (C, N).

    Source: Bioucas-Dias & Nascimento 2008, doi:10.1109/TGRS.2008.918089, section III.A.
    """
    moments = x_CN @ x_CN.T
    moments += 1e-6 * np.trace(moments) / len(moments) * np.eye(len(moments))
    inverse = np.linalg.inv(moments)
    # Row i of the inverse, by its diagonal, is the regression of band i on all others.
    return np.asarray(inverse @ x_CN / np.diag(inverse)[:, None])


def bicubic(cube_CHW: Numbers, ratio: int) -> NDArray[np.float64]:
    """Return an image `ratio` times as large, (C, ratio * H, ratio * W).

    Source: Keys 1981, doi:10.1109/TASSP.1981.1163711 (a = -0.5).
    """
    x = torch.from_numpy(np.asarray(cube_CHW, np.float64))[None]
    # With `antialias` torch's kernel is Keys's own, and images that grow are not smoothed by it.
    large = F.interpolate(
        x, scale_factor=ratio, mode="bicubic", align_corners=False, antialias=True
    )
    return np.asarray(large[0].numpy())
