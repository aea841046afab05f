"""How far two images of one ground are apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 8
"""Largest shift that is looked for [pixel]."""


@dataclass(frozen=True)
class Peak:
    """Where the phase correlation of two images peaks."""

    y: float
    x: float
    """Shift of the second image against the first [pixel]."""
    height: float
    """Over the background, in its standard deviations."""


@dataclass(frozen=True)
class Shift:
    """What several comparisons agree on."""

    y: float
    x: float
    """Shift of the second image against the first [pixel]; NaN if there was no comparison."""
    uncertainty: float
    """Spread of the comparisons, from median absolute deviations [pixel]; NaN if below two."""
    significant: bool
    agreeing: int
    comparisons: int


def phase_shift(first: NDArray[Any], second: NDArray[Any]) -> Peak:
    """Return the shift of `second` (y, x) against `first`: second[y + shift] is first[y].

    NaN is no data. The peak is refined by a Gaussian through its neighbours.
    """
    a, b = (np.fft.rfft2(_prepared(image)) for image in (first, second))
    cross = b * np.conj(a)
    # Phase alone, but for what is all but absent; the highest frequencies hold mostly noise.
    size = np.abs(cross)
    weight = _low_pass(first.shape) / np.maximum(size, max(float(size.max()) * 1e-9, 1e-30))
    surface = np.fft.irfft2(cross * weight, s=first.shape)
    reach = [min(REACH, n // 4) for n in first.shape]
    near = np.roll(surface, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    spread = float(surface.std())
    height = float((near.max() - np.median(surface)) / spread) if spread > 0 else 0.0
    down, right = _refined(near, int(row), int(col))
    return Peak(down - reach[0], right - reach[1], height)


def agreed_shift(peaks: list[Peak], min_peak: float) -> Shift:
    """Return the median of the peaks of at least `min_peak`, and whether it is to be believed.

    It is if at least two peaks, and half of all, agree with it within half a pixel on both axes.
    """
    high = [peak for peak in peaks if peak.height >= min_peak]
    if not high:
        return Shift(np.nan, np.nan, np.nan, significant=False, agreeing=0,
                     comparisons=len(peaks))  # fmt: skip
    places = np.array([(peak.y, peak.x) for peak in high])
    middle = np.median(places, axis=0)
    away = np.abs(places - middle)
    agreeing = int((away <= 0.5).all(axis=1).sum())
    spread = float(1.4826 * np.median(away, axis=0).max()) if len(high) > 1 else float("nan")
    sure = agreeing >= 2 and agreeing >= len(peaks) / 2
    return Shift(float(middle[0]), float(middle[1]), spread, significant=sure, agreeing=agreeing,
                 comparisons=len(peaks))  # fmt: skip


def correlation(first: NDArray[Any], second: NDArray[Any], shift: tuple[int, int]) -> float:
    """Return the correlation coefficient of `first` (y, x) with `second` moved back by `shift`."""
    for axis, by in enumerate(shift):
        size = first.shape[axis]
        ours = np.arange(max(0, -by), size - max(0, by))
        first, second = np.take(first, ours, axis), np.take(second, ours + by, axis)
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < 2 or first[both].std() == 0 or second[both].std() == 0:
        return float("nan")
    return float(np.corrcoef(first[both], second[both])[0, 1])


def _prepared(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the image without mean rows and columns (stripes), windowed; no data is 0."""
    known = np.isfinite(image)
    values = np.where(known, image, 0).astype("float64")
    for axis in (0, 1):
        count = np.maximum(known.sum(axis=axis, keepdims=True), 1)
        values = np.where(known, values - values.sum(axis=axis, keepdims=True) / count, 0)
    window: NDArray[np.float64] = np.outer(*(np.hanning(n) for n in image.shape))
    return values * window


def _low_pass(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a Gaussian weight on the frequencies of `rfft2`; 0 where the mean is.

    Its peak in space has a standard deviation of about 0.7 pixel: wide enough to be refined.
    """
    down, right = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    weight: NDArray[np.float64] = np.exp(-(down**2 + right**2) / (2 * 0.22**2))
    weight[0, 0] = 0
    return weight


def _refined(near: NDArray[Any], row: int, col: int) -> tuple[float, float]:
    """Return the vertex of parabolas through the logarithms of the peak and its neighbours."""
    out = []
    for place, line in ((row, near[:, col]), (col, near[row])):
        offset = 0.0
        if 0 < place < len(line) - 1 and line[place - 1 : place + 2].min() > 0:
            before, here, after = np.log(line[place - 1 : place + 2])
            if (bend := before - 2 * here + after) < 0:
                offset = float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
        out.append(place + offset)
    return out[0], out[1]
