"""The scene Dataset that every reader returns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from pipeline.readers.raster import RasterStack
from storage.schema import SceneError

EARTH_RADIUS_KM = 6371.0088
EO1_ALTITUDE_KM = 705.0
ROWS_LIMIT, COLS_LIMIT = 100_000, 10_000
"""The longest known Hyperion scene has 5,809 lines; a chunk is 64 rows of all bands."""


@dataclass(frozen=True)
class Bands:
    """What is known of each band; all (band)."""

    wavelength: ArrayLike
    """[nm]."""
    fwhm: ArrayLike
    """[nm]."""
    detector: list[str]
    gain: ArrayLike
    """radiance = gain * dn + offset [W m-2 sr-1 um-1]."""
    offset: ArrayLike


def scene_dataset(
    dn: da.Array,
    bands: Bands,
    attrs: dict[str, Any],
    *,
    flags: da.Array | None = None,
    source: RasterStack | None = None,
    numbers: Sequence[int] | None = None,
) -> xr.Dataset:
    """Put a reader's parts together as the scene contract says; nothing is computed.

    Args:
        dn: The product's integers (band, y, x); bands are numbered from 1.
        bands: Values per band.
        attrs: The scene's own.
        flags: Per-sample flags (band, y, x) uint8, if the product has them.
        source: What `dn` comes from, if bands can be taken from it alone; kept in `dn`'s encoding,
            so that the step `bands` opens no other (see `pipeline.selection`).
        numbers: The bands' numbers, where the product lacks some.
    """
    # The array's name tells whether a later `dn` is still what the source gives.
    encoding = {} if source is None else {"source": source, "source_name": dn.name}
    variables: dict[str, Any] = {"dn": (("band", "y", "x"), dn, {}, encoding)}
    if flags is not None:
        variables["flags"] = (("band", "y", "x"), flags)
    per_band = {
        name: ("band", np.asarray(getattr(bands, name), "float64"))
        for name in ("wavelength", "fwhm", "gain", "offset")
    }
    number = np.arange(1, dn.shape[0] + 1, dtype="int32")
    if numbers is not None:
        number = np.asarray(numbers, "int32")
    detector = ("band", np.asarray(bands.detector, "U4"))
    coords = {"band": number, "detector": detector, **per_band}
    return xr.Dataset(variables, coords, {**attrs, "steps": []})


def check_grid(where: str, rows: int, cols: int) -> None:
    """Refuse a raster too large to be a scene, before anything is planned or read of it.

    Raises:
        SceneError: It is empty, or has more than 100,000 rows or 10,000 columns.
    """
    if not (0 < rows <= ROWS_LIMIT and 0 < cols <= COLS_LIMIT):
        raise SceneError(
            where, expected=f"a scene of at most {ROWS_LIMIT} rows and {COLS_LIMIT} columns",
            got=f"{rows} x {cols}", todo="the file is damaged, or cut the scene into parts",
        )  # fmt: skip


def view_zenith(look_angle: float) -> float:
    """Return the view zenith angle at the ground for EO-1's look angle at the satellite [deg].

    Source: law of sines on a sphere, sin(zenith) = (1 + h / R) sin(look), h = 705 km.
    """
    ratio = (EARTH_RADIUS_KM + EO1_ALTITUDE_KM) / EARTH_RADIUS_KM
    sine = ratio * math.sin(math.radians(abs(look_angle)))
    return math.degrees(math.asin(sine)) if sine <= 1 else math.nan
