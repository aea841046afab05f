"""The instrument: what the ground sends up, with noise and stripes, as whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.synth.arrays import Floats, Ints
from pipeline.synth.geometry import Grid
from pipeline.synth.light import Bands, Signal


@dataclass(frozen=True)
class Quality:
    """How good the detectors are."""

    noise: tuple[float, float]
    """Standard deviation over the radiance of a 30 % target, VNIR and SWIR [1]."""
    stripes: tuple[float, float]
    """Spread of the columns' gains, VNIR and SWIR [1]."""
    blue_stripes: float
    """The same below 470 nm [1]."""


def expose(
    weights: Floats,
    seen: tuple[Bands, Signal],
    quality: Quality,
    grid: Grid,
    rng: np.random.Generator,
) -> Iterator[Floats]:
    """Yield the radiance (y, x) [W m-2 sr-1 um-1] of one band after the other, as measured.

    Args:
        weights: Of endmembers and, in the last row, of path (endmember + 1, y, x) [1]. Rows may
            be appended if `seen`'s signal has a row of radiance for each.
        seen: The bands and what they see.
        quality: Noise and stripes.
        grid: Which detector column sees which pixel.
        rng: Drawn from once per band in a fixed order.
    """
    bands, sight = seen
    flat = weights.reshape(weights.shape[0], -1)
    radiance = sight.radiance.astype(np.float32)
    for index in range(len(bands.number)):
        signal = (radiance[:, index] @ flat).reshape(grid.valid.shape)
        swir = bool(bands.swir[index])
        # A 30 % target under the mean endmember's light.
        level = 0.3 * sight.irradiance[index] * 0.25 * (0.2 + 0.8 * sight.transmittance[index])
        spread = quality.stripes[swir]
        if bands.wavelength[index] < 470:
            spread = quality.blue_stripes
        gain = (1 + spread * rng.standard_normal(grid.columns)).astype(np.float32)
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        yield signal * gain[grid.sample] + np.float32(quality.noise[swir] * level) * noise


def hyperion_counts(radiance: Floats, gain: float, *, live: bool) -> Ints:
    """Return int16 DN; a band that is not calibrated is delivered as zeros."""
    if not live:
        return np.zeros(radiance.shape, np.int16)
    counts: Ints = np.rint(np.clip(radiance / gain, -32768, 32767)).astype(np.int16)
    return counts


def ahsi_counts(radiance: Floats, band: tuple[float, float], *, live: bool) -> Ints:
    """Return uint16 DN from 1 to 4095 (0 means no data) for a band's (gain, offset).

    A band with a gain near or below zero shows the dark level and a trace of light, since its
    DN follow no calibration.
    """
    gain, offset = band if live else (0.02, -1.2)
    counts: Ints = np.rint(np.clip((radiance - offset) / gain, 1, 4095)).astype(np.uint16)
    return counts
