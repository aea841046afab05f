"""What a scene's page is made of: small arrays and plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.floating[Any]]
type Bools = NDArray[np.bool_]
type Ints = NDArray[np.int64]

WATER_VAPOUR = ((1350.0, 1430.0), (1800.0, 1955.0))
"""Where water vapour lets no light through to the ground [nm].

Source: the cores that the AHSI band list `calibrated` leaves out, and the gaps of Hyperion's
`hyperglobal` (bands 121-126 and 167-180), taken together.
"""


@dataclass(frozen=True)
class Preview:
    """The scene by every `step`-th row and column; images (y, x)."""

    step: int
    shape: tuple[int, int]
    """Rows and columns of the whole scene."""
    wavelength: Mapping[str, float]
    """Of each image's band [nm]."""
    images: Mapping[str, NDArray[np.float32]]
    """The stored quantity by the name of the band; NaN where not measured."""
    valid: Bools
    masks: Mapping[str, Bools]


@dataclass(frozen=True)
class Masks:
    """How much of the scene each mask covers, by all of its pixels."""

    valid: float
    """Share of valid pixels [1]."""
    share: Mapping[str, float]
    """Of each mask, among the valid pixels [1]."""
    unavailable: Mapping[str, str]
    """Masks that could not be made, and why."""


@dataclass(frozen=True)
class BandTable:
    """The stored bands; all arrays (band)."""

    number: Ints
    wavelength: Floats
    """[nm]."""
    detector: NDArray[np.str_]
    signal: Floats
    """Median over windows of their means, in the stored unit."""
    noise: Floats
    """Median over windows of the noise's standard deviation, in the stored unit."""
    snr: Floats
    """Median over windows of signal over noise [1]; NaN if not known."""
    windows: int
    """Windows of 64 x 64 pixels that these come from."""
    stripes_before: Floats
    """Stripe index of the integers as delivered [1]; NaN if not known."""
    stripes_after: Floats
    """The same after the recipe's steps [1]."""


@dataclass(frozen=True)
class Detectors:
    """What is known of each detector in sensor geometry; all arrays (band, x)."""

    dead: Floats
    """Share of rows in which the sample counts as dead [1]."""
    bad: Bools
    """Dead or stuck by the step `detectors`."""


@dataclass(frozen=True)
class Smile:
    """How far the columns' wavelengths are from their band's, of the calibrated bands."""

    wavelength: Floats
    """(band) [nm]."""
    detector: NDArray[np.str_]
    """(band)."""
    deviation: Floats
    """(band, x) [nm]."""


@dataclass(frozen=True)
class Pixels:
    """Spectra of pixels that stand for groups of like ones; the brightest first."""

    row: Ints
    col: Ints
    share: Floats
    """Of the sampled pixels that each stands for (pixel) [1]."""
    values: NDArray[np.float32]
    """The stored quantity (pixel, band)."""
    sampled: int
    """Pixels that they were chosen from."""


@dataclass(frozen=True)
class Fates:
    """What became of each window; all arrays (window)."""

    row: Ints
    col: Ints
    reason: NDArray[np.str_]
    """"" of a kept tile."""
    columns: Mapping[str, Floats]
    """Quality columns; NaN of windows that were rejected by their place."""
    counts: Mapping[str, Any]
    """`in` = `kept` + `rejected` by reason."""


@dataclass(frozen=True)
class Quality:
    """All that a scene's page and its JSON show."""

    facts: Mapping[str, Any]
    """What `pipeline.inspect.facts` returns."""
    recipe: str
    steps: tuple[Mapping[str, Any], ...]
    """What the recipe's steps recorded."""
    parameters: Mapping[str, tuple[str, ...]]
    """Names of each step's parameters; all else in its record was measured."""
    quantity: str
    """What is stored, with its unit, as an axis says it."""
    preview: Preview
    masks: Masks
    bands: BandTable
    pixels: Pixels
    fates: Fates
    shaded: Mapping[str, tuple[tuple[float, float], ...]]
    """Ranges of wavelengths [nm] of bands not to be trusted, by the reason."""
    detectors: Detectors | None
    """None of a map product."""
    smile: Smile | None
    """None of a map product, and where the product has no wavelengths by column."""
