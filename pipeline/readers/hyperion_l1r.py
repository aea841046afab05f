"""EO-1 Hyperion L1R: HDF4 in sensor geometry, `.L1R` pixels, `.AUX` bands and flags, `.MET` text.

Source: USGS EO-1 product README (January 2013) and FAQ 22 (flag mask).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.readers import metadata
from pipeline.readers.earthexplorer import description
from pipeline.readers.hdf4 import HdfFile, lazy_cube, open_hdf
from pipeline.readers.hyperion import scene_id, sun_and_time
from pipeline.readers.names import entity_id
from pipeline.readers.product import Member, Product, file_source
from pipeline.readers.scene import COLS_LIMIT, Bands, check_grid, scene_dataset
from pipeline.sensors.hyperion import HYPERION_BANDS, hyperion_detectors
from storage.schema import SceneError

LOOKED_FOR = "Hyperion L1R (EO1H*.L1R, .AUX and .MET)"
FILL = -32767
"""Of samples beyond the calibration's range; borders are 0."""
SCALE = {"VNIR": 40.0, "SWIR": 80.0}
"""DN per W m-2 sr-1 um-1 of signed L1 products; they have no MTL to say so."""
_OLD = r"EO1H.*\.L1(_[AB])?"
_CENTRES = "Spectral Center Wavelengths"
_CORNERS = ("UL", "UR", "LL", "LR")


def matches(product: Product) -> bool:
    """Say whether the product has an L1R file, or an older L1 file, of Hyperion."""
    return bool(product.find(r".*\.L1R") or product.find(_OLD))


def open_hyperion_l1r(product: Product) -> xr.Dataset:
    """Open an L1R product; reads the metadata, and no pixel.

    The auxiliary tables are in the AUX file, or beside the image in the L1R file. Wavelength
    and FWHM are the mean over the columns of theirs (USGS's own rule), which are
    `wavelength_column` and `fwhm_column` (band, x) [nm] float32.
    `flags`: 0 normal, 1 saturated, 2 dead, 3 flat, 4 fill. `nodata` is 0, `fill` -32767.
    Sun angles are NaN unless the MET file or EarthExplorer's description (`eo1_hyp_pub_*`, in
    the product or beside it) has them; `corners` are the lon, lat [deg] of the image's four
    corners. `notes` says in words what is unusual and was accepted.

    Raises:
        SceneError: A file is missing, damaged or not what it should be.
    """
    image = _only(product, "L1R")
    own = product.find(r".*\.AUX")
    members = [image, _only(product, "AUX")] if own else [image]
    hdf = open_hdf(product, members)
    name = _image_name(hdf[0])
    extra = _auxiliary(product, hdf)
    shape = hdf[0].data_sets[name].shape
    check_grid(hdf[0].where, shape[0], shape[2])
    wavelength = _per_band(extra, _CENTRES)
    fwhm = _per_band(extra, "Spectral Bandwidths")
    if wavelength.max() < 100:  # some files are in micrometres
        wavelength, fwhm = wavelength * 1000, fwhm * 1000
    detector = hyperion_detectors()
    gain = np.array([1 / SCALE[d] for d in detector])
    attrs: dict[str, Any] = {
        "sensor": "hyperion", "platform": "EO-1", "level": "L1R",
        "scene_id": scene_id(image.basename[:-4], "1R"), "nodata": 0, "fill": FILL,
        **_described(product, image, members),
    }  # fmt: skip
    tables = {"wavelength_column": wavelength, "fwhm_column": fwhm}
    if wavelength.shape[1] != shape[2] or fwhm.shape != wavelength.shape:
        raise _wrong(
            extra.where, f"tables of {shape[2]} columns", f"{wavelength.shape}, {fwhm.shape}"
        )
    bands = Bands(
        wavelength.mean(axis=1), fwhm.mean(axis=1), detector, gain, np.zeros(HYPERION_BANDS)
    )
    flags = lazy_cube(extra, _flag_name(extra, shape))
    scene = scene_dataset(lazy_cube(hdf[0], name), bands, attrs, flags=flags)
    return scene.assign({
        name: (("band", "x"), table.astype("float32"), {"units": "nm"})
        for name, table in tables.items()
    })  # fmt: skip


def _described(product: Product, image: Member, used: list[Member]) -> dict[str, Any]:
    """Return the attributes from the MET file and EarthExplorer's description."""
    entity = entity_id(image.basename) or image.basename[:-4]
    met = _only(product, "MET")
    where = product.where(met)
    values = {k: v for k, v in metadata.parse_odl(product.read(met)).items() if v}
    described, members, file = description(product, entity)
    taken = sorted(set(described) - set(values))
    notes = [f"{', '.join(taken)} from {Path(file).name}"] if taken else []
    values = described | values
    if not values.get("START_TIME") and not values.get("ACQUISITION_DATE"):
        # EO1H PPP RRR YYYY DDD: the day is part of the entity id.
        values["START_TIME"] = f"{entity[10:14]} {entity[14:17]} 00:00:00"
        notes.append("no time of day: the date is the entity id's")
    beside = [Path(file)] if file and not members else []
    sources = product.sources([*used, met, *members])
    return {
        **sun_and_time(values, where), "corners": _corners(values, where), "notes": notes,
        "sources": [*sources, *map(file_source, beside)],
    }  # fmt: skip


def _only(product: Product, suffix: str) -> Member:
    found = product.find(rf".*\.{suffix}")
    if len(found) == 1:
        return found[0]
    old = product.find(_OLD)
    if old and suffix == "L1R":
        raise SceneError(
            product.where(old[0]), expected="signed L1R data (.L1R), scaled by 40 and 80",
            got="an old .L1_A or .L1_B file, processed otherwise" if "_" in old[0].basename[-3:]
            else "an old .L1 file, which is unsigned and scaled by 100",
            todo="order the scene from USGS as L1R or L1T",
        )  # fmt: skip
    raise _wrong(
        str(product.path), f"one .{suffix} file", f"{[m.basename for m in found] or 'none'}"
    )


def _image_name(pixels: HdfFile) -> str:
    """Return the name of the only 3-D int16 data set; the name itself varies."""
    cubes = {n: d for n, d in pixels.data_sets.items()
             if len(d.shape) == 3 and d.dtype[1:] == "i2"}  # fmt: skip
    if len(cubes) != 1 or next(iter(cubes.values())).shape[1] != HYPERION_BANDS:
        raise _wrong(
            pixels.where, f"one int16 data set (line, {HYPERION_BANDS} bands, sample)",
            _words(pixels),
        )  # fmt: skip
    return next(iter(cubes))


def _auxiliary(product: Product, files: list[HdfFile]) -> HdfFile:
    """Return the file with the tables: the AUX file, or the image's own."""
    for file in reversed(files):
        if _CENTRES in file.data_sets:
            return file
    if len(files) == 1:
        raise _wrong(str(product.path), f"one .AUX file, or {_CENTRES!r} in the L1R file", "none")
    raise _wrong(files[-1].where, f"a data set {_CENTRES!r}", _words(files[-1]))


def _flag_name(aux: HdfFile, shape: tuple[int, ...]) -> str:
    """Return the name of the only uint8 data set of the image's shape."""
    found = [n for n, d in aux.data_sets.items() if d.shape == shape and d.dtype[1:] == "u1"]
    if len(found) != 1:
        raise _wrong(aux.where, f"a uint8 data set 'Flag Mask' of {shape}", _words(aux))
    return found[0]


def _words(file: HdfFile) -> str:
    sets = [f"{n!r} {d.shape} {np.dtype(d.dtype).name}" for n, d in file.data_sets.items()]
    return ", ".join(sets[:6]) or "no data set"


def _per_band(aux: HdfFile, name: str) -> NDArray[np.float64]:
    """Return a table (band, sample) whose means over the columns are positive."""
    found = aux.data_sets.get(name)
    shape = found.shape if found else ()
    if len(shape) != 2 or shape[0] != HYPERION_BANDS or shape[1] > COLS_LIMIT:
        raise _wrong(aux.where, f"a data set {name!r} ({HYPERION_BANDS} bands, sample)",
                     f"{shape or 'none'}")  # fmt: skip
    table = aux.read(name, 0, HYPERION_BANDS).astype("float64")
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
