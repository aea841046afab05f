"""What one detector's columns are, from a scene's integers: gathered a few rows at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.quality.columns import ColumnStatistics, bridged
from pipeline.quality.stripes import Floats, index_of

_POOR = 0.2
"""Share of broken samples from which on a band is left alone."""


@dataclass
class DetectorColumns:
    """One detector's bands and what was gathered of them."""

    place: NDArray[np.intp]
    """Of its bands among the scene's."""
    statistics: ColumnStatistics
    poor: NDArray[np.bool_]
    """Bands with too many broken samples (band)."""
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
        self.poor |= spoilt[:, usable].mean(axis=1) > _POOR
        usable &= ~spoilt[~self.poor].any(axis=0)
        self.statistics.add(values, usable)
        limits = np.iinfo(values.dtype)
        share = np.maximum(values / limits.max, values / limits.min if limits.min else 0)
        self.highest = np.maximum(self.highest, np.where(usable, share, 0).max(axis=1))

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
        place, ColumnStatistics(bands, width), np.zeros(bands, bool), np.zeros((bands, width))
    )
