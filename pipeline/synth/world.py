"""One invented landscape, a function of longitude and latitude and of nothing else.

Six land-cover classes, each a blend of two measured spectra. Where a class lies is decided by
random plane waves (one random field per class, sharpened softmax), so that patches are some
hundreds of metres wide, borders are a few pixels wide, and two scenes of the same place agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.synth.arrays import Floats

ORIGIN = (-2.6, 37.15)
"""Longitude and latitude of the middle of the landscape [deg], inside UTM zone 30."""

KM_PER_DEGREE = (111.32 * float(np.cos(np.deg2rad(ORIGIN[1]))), 110.99)
"""Kilometres per degree of longitude and of latitude near the origin; the landscape is flat."""

CLASSES = (
    "conifer forest",
    "dry grassland",
    "water",
    "clay soil",
    "carbonate rock",
    "serpentine rock",
)
"""Names of the classes 1..6, in order."""

ENDMEMBERS = (
    ("spruce_needles", "rangeland_green"),
    ("golden_dry_grass", "lodgepole_pine_needles_dry"),
    ("coastal_seawater", "water_montmorillonite_0.5g_l"),
    ("illite_marblehead", "illite_imt1"),
    ("dolomite", "calcite"),
    ("antigorite", "chlorite"),
)
"""The two spectra of each class, columns of `tables/usgs_splib07_subset.csv`."""

# A rock face lies half in its own shade, unlike the packed powder in the laboratory.
BRIGHTNESS = (1.0, 1.0, 1.0, 1.0, 0.6, 1.0)
SHARPNESS = 10.0
SHADING = 0.05


@dataclass(frozen=True)
class Waves:
    """Plane waves that add up to one random field of mean 0 and variance 1."""

    wavenumber: Floats
    """(2, wave) [rad km-1]."""
    phase: Floats
    """(wave) [rad]."""
    amplitude: Floats
    """(wave) [1]."""


@dataclass(frozen=True)
class World:
    """The landscape of one seed."""

    cover: tuple[Waves, ...]
    """Which class, one field each."""
    blend: tuple[Waves, ...]
    """Share of a class's second spectrum, one field each."""
    shade: Waves
    """Slopes turned to or from the sun."""


def make_world(seed: int) -> World:
    """Draw the landscape of `seed`."""
    rng = np.random.default_rng([seed, 0x776F726C64])
    cover = tuple(_waves(rng, ((1.3, 3.6, 24, 1.0), (0.4, 0.9, 10, 0.2))) for _ in CLASSES)
    blend = tuple(_waves(rng, ((1.0, 5.0, 8, 1.0),)) for _ in CLASSES)
    return World(cover, blend, _waves(rng, ((0.3, 2.0, 12, 1.0),)))


def class_shares(world: World, lon: Floats, lat: Floats) -> Floats:
    """Return the share of each class (class, y, x) [1], which sum to 1, at `lon`, `lat` (y, x)."""
    x, y = kilometres(lon, lat)
    logit = SHARPNESS * np.stack([_field(waves, x, y) for waves in world.cover])
    share = np.exp(logit - logit.max(axis=0))
    share /= share.sum(axis=0)
    return share.astype(np.float32)


def abundances(world: World, lon: Floats, lat: Floats) -> Floats:
    """Return the weight of each measured spectrum (endmember, y, x) [1], float32.

    The weights of a pixel sum to its brightness (about 1, less on carbonate rock), not to 1: slopes
    and shade are in them. True reflectance is the weighted sum of the endmember spectra.
    """
    x, y = kilometres(lon, lat)
    light = 1 + SHADING * np.clip(_field(world.shade, x, y), -2, 2)
    weights: list[Floats] = []
    for share, waves, brightness in zip(
        class_shares(world, lon, lat), world.blend, BRIGHTNESS, strict=True
    ):
        second = 0.3 + 0.12 * np.clip(_field(waves, x, y), -2, 2)
        weights += [share * light * brightness * (1 - second), share * light * brightness * second]
    return np.stack(weights).astype(np.float32)


def kilometres[T: (float, Floats)](lon: T, lat: T) -> tuple[T, T]:
    """Return the distance east and north of the origin [km]."""
    return (lon - ORIGIN[0]) * KM_PER_DEGREE[0], (lat - ORIGIN[1]) * KM_PER_DEGREE[1]


def degrees[T: (float, Floats)](east: T, north: T) -> tuple[T, T]:
    """Return longitude and latitude [deg] of points `east` and `north` of the origin [km]."""
    return ORIGIN[0] + east / KM_PER_DEGREE[0], ORIGIN[1] + north / KM_PER_DEGREE[1]


def _waves(rng: np.random.Generator, octaves: tuple[tuple[float, float, int, float], ...]) -> Waves:
    """Draw waves: per octave the shortest and longest wavelength [km], number and share."""
    numbers, amplitudes = [], []
    for shortest, longest, count, share in octaves:
        length = np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
        turn = rng.uniform(0, 2 * np.pi, count)
        numbers.append(2 * np.pi / length * np.stack([np.cos(turn), np.sin(turn)]))
        amplitudes.append(np.full(count, share / np.sqrt(count)))
    amplitude = np.concatenate(amplitudes)
    phase = rng.uniform(0, 2 * np.pi, amplitude.size)
    # A wave of amplitude a has the variance a^2 / 2.
    return Waves(np.hstack(numbers), phase, amplitude / np.sqrt(np.sum(amplitude**2) / 2))


def _field(waves: Waves, x: Floats, y: Floats) -> Floats:
    field = np.zeros(x.shape, np.float32)
    for (kx, ky), phase, amplitude in zip(
        waves.wavenumber.T, waves.phase, waves.amplitude, strict=True
    ):
        # Reduced to one turn in float64, since float32 cannot hold a long phase.
        angle = np.remainder(kx * x + ky * y + phase, 2 * np.pi).astype(np.float32)
        field += np.float32(amplitude) * np.cos(angle)
    return field
