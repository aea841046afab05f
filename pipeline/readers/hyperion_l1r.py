"""EO-1 Hyperion L1R: HDF4 in sensor geometry, `.L1R` pixels, `.AUX` bands and flags, `.MET` text.

Source: USGS EO-1 product README (January 2013) and FAQ 22 (flag mask).
"""

import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.readers import metadata
from pipeline.readers.hdf4 import HdfFile, lazy_cube
from pipeline.readers.hyperion import scene_id, sun_and_time
from pipeline.readers.product import Member, Product
from pipeline.readers.scene import Bands, scene_dataset
from pipeline.sensors.hyperion import HYPERION_BANDS, hyperion_detectors
from storage.schema import SceneError

LOOKED_FOR = "Hyperion L1R (EO1H*.L1R, .AUX and .MET)"
FILL = -32767
"""Of samples beyond the calibration's range; borders are 0."""
SCALE = {"VNIR": 40.0, "SWIR": 80.0}
"""DN per W m-2 sr-1 um-1 of signed L1 products; they have no MTL to say so."""
_CORNERS = ("UL", "UR", "LL", "LR")


def matches(product: Product) -> bool:
    """Say whether the product has an L1R file, or an older L1 file, of Hyperion."""
    return bool(product.find(r".*\.L1R") or product.find(r"EO1H.*\.L1"))


def open_hyperion_l1r(product: Product) -> xr.Dataset:
    """Open an L1R product; reads the metadata and one line, and no other pixel.

    Wavelength and FWHM are the mean over the columns of the AUX file's (USGS's own rule), which
    are `wavelength_column` and `fwhm_column` (band, x) [nm] float32.
    `flags`: 0 normal, 1 saturated, 2 dead, 3 flat, 4 fill. `nodata` is 0, `fill` -32767.
    Sun angles are NaN unless the MET file has them; `corners` are the lon, lat [deg] of the
    image's four corners.

    Raises:
        SceneError: A file is missing, damaged or not what it should be.
    """
    image, aux, met = (_only(product, suffix) for suffix in ("L1R", "AUX", "MET"))
    content = {} if product.kind == "folder" else product.spool([image, aux])
    pixels, extra = (HdfFile(product, m, content.get(m.name)) for m in (image, aux))
    name = _image_name(pixels)
    shape = pixels.datasets[name][0]
    wavelength = _per_band(extra, "Spectral Center Wavelengths")
    fwhm = _per_band(extra, "Spectral Bandwidths")
    if wavelength.max() < 100:  # some files are in micrometres
        wavelength, fwhm = wavelength * 1000, fwhm * 1000
    if extra.datasets.get("Flag Mask") != (shape, "uint8"):
        raise _wrong(
            extra.where, f"a uint8 data set 'Flag Mask' of {shape}",
            str(extra.datasets.get("Flag Mask", "none")),
        )  # fmt: skip
    detector = hyperion_detectors()
    gain = np.array([1 / SCALE[d] for d in detector])
    where = product.where(met)
    values = metadata.parse_odl(product.read(met))
    attrs: dict[str, Any] = {
        "sensor": "hyperion", "platform": "EO-1", "level": "L1R",
        "scene_id": scene_id(image.basename[:-4], "1R"), **sun_and_time(values, where),
        "nodata": 0, "fill": FILL, "corners": _corners(values, where),
        "sources": product.sources([image, aux, met]),
    }  # fmt: skip
    tables = {"wavelength_column": wavelength, "fwhm_column": fwhm}
    if wavelength.shape[1] != shape[2] or fwhm.shape != wavelength.shape:
        raise _wrong(
            extra.where, f"tables of {shape[2]} columns", f"{wavelength.shape}, {fwhm.shape}"
        )
    bands = Bands(
        wavelength.mean(axis=1), fwhm.mean(axis=1), detector, gain, np.zeros(HYPERION_BANDS)
    )
    flags = lazy_cube(extra, "Flag Mask")
    scene = scene_dataset(lazy_cube(pixels, name), bands, attrs, flags=flags)
    return scene.assign({
        name: (("band", "x"), table.astype("float32"), {"units": "nm"})
        for name, table in tables.items()
    })  # fmt: skip


def _only(product: Product, suffix: str) -> Member:
    found = product.find(rf".*\.{suffix}")
    if len(found) == 1:
        return found[0]
    old = product.find(r"EO1H.*\.L1")
    if old and suffix == "L1R":
        raise _wrong(
            product.where(old[0]), "signed L1R data (.L1R)",
            "an old .L1 file, which is unsigned and scaled otherwise",
        )  # fmt: skip
    raise _wrong(
        str(product.path), f"one .{suffix} file", f"{[m.basename for m in found] or 'none'}"
    )


def _image_name(pixels: HdfFile) -> str:
    """Return the name of the only 3-D int16 data set; the name itself varies."""
    cubes = {n: d for n, d in pixels.datasets.items() if len(d[0]) == 3 and d[1] == "int16"}
    if len(cubes) != 1 or next(iter(cubes.values()))[0][1] != HYPERION_BANDS:
        raise _wrong(
            pixels.where, f"one int16 data set (line, {HYPERION_BANDS} bands, sample)",
            f"{pixels.datasets or 'no data set'}",
        )  # fmt: skip
    return str(next(iter(cubes)))


def _per_band(aux: HdfFile, name: str) -> NDArray[np.float64]:
    """Return a table (band, sample) whose means over the columns are positive."""
    shape, _ = aux.datasets.get(name, ((), ""))
    if len(shape) != 2 or shape[0] != HYPERION_BANDS:
        raise _wrong(aux.where, f"a data set {name!r} ({HYPERION_BANDS} bands, sample)",
                     f"{shape or 'none'}")  # fmt: skip
    table = aux.read(name, (0, 0), shape).astype("float64")
    mean: NDArray[np.float64] = table.mean(axis=1)
    if not (np.isfinite(mean) & (mean > 0)).all():
        raise _wrong(aux.where, f"positive numbers in {name!r}", f"{mean.min()} to {mean.max()}")
    return table


def _corners(values: dict[str, str], where: str) -> dict[str, list[float]]:
    """Return lon, lat of the corners, by name; empty if they are not all there."""
    corners = {}
    for corner in _CORNERS:
        limits = (("LON", 180), ("LAT", 90))
        place = [
            metadata.angle(values, f"PRODUCT_{corner}_CORNER_{axis}", where, low=-high, high=high)
            for axis, high in limits
        ]
        if not all(map(math.isfinite, place)):
            return {}
        corners[corner.lower()] = place
    return corners


def _wrong(where: str, expected: str, got: str) -> SceneError:
    return SceneError(
        where, expected=expected, got=got, todo="fetch the whole L1R product from USGS again"
    )
