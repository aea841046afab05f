"""What one detector's columns are, from a scene's integers: gathered a few rows at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.quality.columns import ColumnStatistics, bridged
from pipeline.quality.stripes import Floats, index_of

_POOR = 0.2
"""Share of broken samples from which on a band is left alone."""
_ENOUGH = 0.25
"""Share of some rows' pixels that must be left without those in which any band is broken."""


@dataclass
class DetectorColumns:
    """One detector's bands and what was gathered of them."""

    place: NDArray[np.intp]
    """Of its bands among the scene's."""
    statistics: ColumnStatistics
    broken: NDArray[np.int64]
    """Broken samples among those that the statistics are of (band)."""
    highest: Floats
    """Largest magnitude of a usable sample over the dtype's limit (band, x) [1]."""

    def add(self, dn: NDArray[Any], spoilt: NDArray[np.bool_], nodata: int) -> None:
        """Take in some rows: pixels that all bands measured, so that they see the same ground.

        Args:
            dn: The scene's integers (band, y, x).
            spoilt: Samples that are flagged or filled (band, y, x), not those of bad detectors.
            nodata: The integer that is no measurement.
        """
        values, spoilt = dn[self.place], spoilt[self.place]
        empty = values == nodata
        # Flags in bands that are not calibrated say nothing of the others.
        spoilt = spoilt & ~empty.all(axis=(1, 2))[:, None, None]
        usable = ~empty.all(axis=0) & (spoilt.mean(axis=0) <= 0.5)
        if not usable.any():
            return
        # A cloud's pixels are dropped for all bands; a band that is broken almost everywhere takes
        # no pixel from the others.
        share, pixels = spoilt[:, usable].mean(axis=1), usable.sum()
        usable &= ~spoilt[share <= _POOR].any(axis=0)
        for band in np.argsort(share)[np.sort(share) > _POOR]:
            left = usable & ~spoilt[band]
            if left.sum() < _ENOUGH * pixels:
                break
            usable = left
        spoilt &= usable
        self.broken += spoilt.sum(axis=(1, 2))
        self.statistics.add(values, usable)
        limits = np.iinfo(values.dtype)
        share = np.maximum(values / limits.max, values / limits.min if limits.min else 0)
        self.highest = np.maximum(self.highest, np.where(usable & ~spoilt, share, 0).max(axis=1))

    @property
    def poor(self) -> NDArray[np.bool_]:
        """Bands with too many broken samples (band)."""
        return self.broken > _POOR * self.statistics.counts.sum()

    def ignored(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what is no measurement (band, x): `bad` (band, x) detectors and poor bands."""
        return bad | self.poor[:, None]

    def means(self, bad: NDArray[np.bool_]) -> Floats:
        """Return the columns' means (band, x), on a line between the neighbours where ignored."""
        return bridged(self.statistics.means(), self.ignored(bad))

    def stripe_index(self, bad: NDArray[np.bool_]) -> Floats:
        """Return the stripe index of each band (band) [1], see `pipeline.quality.stripes`."""
        return index_of(self.means(bad), self.statistics.curvatures)


def detector_columns(place: NDArray[np.intp], width: int) -> DetectorColumns:
    """Return an empty one for the bands at `place`, of `width` columns."""
    bands = len(place)
    return DetectorColumns(
        place, ColumnStatistics(bands, width), np.zeros(bands, np.int64), np.zeros((bands, width))
    )
