"""Read a GeoTIFF or an ENVI cube, with its grid and wavelengths.

Beside `hypersigma.maps` the only module of the trainer that knows rasterio.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors

from hypersigma.cubes.cube import Cube, new_cube

DATA_SUFFIXES = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw")
"""Of the file that belongs to an ENVI header."""


def read_raster(path: Path) -> Cube:
    """Read an image that GDAL can open.

    Raises:
        FileNotFoundError: There is no such file, or an ENVI header without its data.
        ValueError: No image.
    """
    data = _data_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            source = rasterio.open(data)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{data}: expected a GeoTIFF or an ENVI cube, got: {error}") from error
    with source:
        x_HWC = source.read().transpose(1, 2, 0)
        placed = source.crs is not None or not source.transform.is_identity
        return new_cube(
            np.ascontiguousarray(x_HWC),
            wavelength=_wavelengths(source),
            nodata=source.nodata,
            crs=source.crs.to_string() if source.crs is not None else None,
            transform=tuple(source.transform)[:6] if placed else None,
            source={
                "file": data.name, "key": None, "axes": "HWC", "shape": list(x_HWC.shape),
                "driver": source.driver,
            },
        )  # fmt: skip


def _data_file(path: Path) -> Path:
    if path.suffix.lower() != ".hdr":
        candidates = [path]
    else:
        stem = path.with_suffix("")
        candidates = [stem.with_name(stem.name + suffix) for suffix in DATA_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = ", ".join(candidate.name for candidate in candidates)
    raise FileNotFoundError(f"{path}: expected the image's data in one of {names}, found none")


def _wavelengths(source: Any) -> list[float] | None:
    """Return the band centres [nm] or [um], as an ENVI header or the bands' own tags tell them."""
    header = source.tags(ns="ENVI").get("wavelength")
    if header is not None:
        found = [float(number) for number in re.findall(r"[-+0-9.eE]+", header)]
        return found if len(found) == source.count else None
    each = []
    for band in source.indexes:
        tags = {name.lower(): value for name, value in source.tags(band).items()}
        value = tags.get("wavelength") or source.tags(band, ns="IMAGERY").get(
            "CENTRAL_WAVELENGTH_UM"
        )
        if value is None:
            return None
        each.append(float(value))
    return each
