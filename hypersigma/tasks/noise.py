"""Noise of hyperspectral sensors, as functions of an image and a generator.

Images are scaled so that a band's values lie in about 0..1; nothing is clipped. Shape letters:
C bands, H W pixels.

Source: levels and shares of Wei et al. 2020, doi:10.1109/TNNLS.2020.2978756 (QRNN3D), which the
published HyperSIGMA code took over; there the mixture has stripes, dead lines and impulses.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

type Numbers = NDArray[np.floating]
type NoiseName = Literal["gaussian", "non_iid", "impulse", "stripe", "dead_line", "mixture"]

GAUSSIAN = 50 / 255
"""Deviation where all bands have the same."""
LEVELS = (10 / 255, 30 / 255, 50 / 255, 70 / 255)
"""Deviations of which a band has one, where they differ."""
BAND_SHARE = 1 / 3
"""Share of the bands that have impulses, stripes or dead lines."""
IMPULSES = (0.1, 0.3, 0.5, 0.7)
"""Shares of a band's pixels that are impulses, of which a band has one."""
COLUMNS = (0.05, 0.15)
"""Smallest and largest share of a band's columns that are stripes or dead."""
STRIPE = 0.25
"""Largest offset of a stripe."""


def add_gaussian(x_CHW: Numbers, rng: np.random.Generator, *, sigma: float = GAUSSIAN) -> Numbers:
    """Return the image with independent normal noise of one deviation."""
    return x_CHW + sigma * rng.normal(size=x_CHW.shape).astype(x_CHW.dtype)


def add_non_iid(
    x_CHW: Numbers, rng: np.random.Generator, *, levels: tuple[float, ...] = LEVELS
) -> Numbers:
    """Return the image with normal noise whose deviation is drawn band by band."""
    sigma_C11 = rng.choice(levels, size=(len(x_CHW), 1, 1)).astype(x_CHW.dtype)
    return x_CHW + sigma_C11 * rng.normal(size=x_CHW.shape).astype(x_CHW.dtype)


def add_impulses(
    x_CHW: Numbers, rng: np.random.Generator, *, shares: tuple[float, ...] = IMPULSES
) -> Numbers:
    """Return the image with pixels of some bands at 0 or 1, as often one as the other."""
    out = x_CHW.copy()
    for band in _some_bands(len(out), rng):
        hit_HW = rng.random(out.shape[1:]) < rng.choice(shares)
        out[band][hit_HW] = rng.integers(0, 2, size=int(hit_HW.sum()))
    return out


def add_stripes(x_CHW: Numbers, rng: np.random.Generator, *, largest: float = STRIPE) -> Numbers:
    """Return the image with an offset, of its own each, on some columns of some bands."""
    out = x_CHW.copy()
    for band in _some_bands(len(out), rng):
        columns = _some_columns(out.shape[2], rng)
        out[band][:, columns] -= rng.uniform(-largest, largest, len(columns)).astype(out.dtype)
    return out


def add_dead_lines(x_CHW: Numbers, rng: np.random.Generator) -> Numbers:
    """Return the image with some columns of some bands at 0."""
    out = x_CHW.copy()
    for band in _some_bands(len(out), rng):
        out[band][:, _some_columns(out.shape[2], rng)] = 0
    return out


NOISES: dict[NoiseName, tuple[Callable[..., Numbers], ...]] = {
    "gaussian": (add_gaussian,),
    "non_iid": (add_non_iid,),
    "impulse": (add_non_iid, add_impulses),
    "stripe": (add_non_iid, add_stripes),
    "dead_line": (add_non_iid, add_dead_lines),
    "mixture": (add_non_iid, add_stripes, add_dead_lines, add_impulses),
}
"""What is added one after another; all but the first case have noise that differs by band."""


def noisy(x_CHW: Numbers, name: NoiseName, *seeds: int) -> Numbers:
    """Return the image with noise that is a function of the seeds alone.

    Args:
        x_CHW: Scaled image, at least three bands.
        name: Which noise.
        seeds: What it is drawn from.

    Raises:
        ValueError: Not three axes, values that are not finite, or an unknown noise.
    """
    if x_CHW.ndim != 3 or not np.isfinite(x_CHW).all():
        raise ValueError(
            f"expected a finite image (band, y, x) to add noise to, got {x_CHW.shape} with "
            f"{int((~np.isfinite(x_CHW)).sum())} values that are not; leave these bands out"
        )
    if name not in NOISES:
        raise ValueError(f"noise: expected one of {', '.join(NOISES)}, got {name!r}")
    rng = np.random.default_rng(list(seeds))
    for add in NOISES[name]:
        x_CHW = add(x_CHW, rng)
    return x_CHW


def _some_bands(bands: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(bands, size=max(1, int(bands * BAND_SHARE)), replace=False)


def _some_columns(width: int, rng: np.random.Generator) -> NDArray[np.int64]:
    count = rng.integers(max(1, int(COLUMNS[0] * width)), max(2, int(COLUMNS[1] * width)) + 1)
    return rng.choice(width, size=min(int(count), width), replace=False)
