"""EO-1 Hyperion L1T and L1GST: 242 GeoTIFFs, one a band, and an MTL file.

Source: USGS EO-1 product README (January 2013); band table see `pipeline/tables/`.
"""

import math
import re
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.readers import metadata
from pipeline.readers.gdal import Header, read_headers
from pipeline.readers.names import entity_id
from pipeline.readers.product import Member, Product
from pipeline.readers.projection import notes_on_projection
from pipeline.readers.raster import raster_stack
from pipeline.readers.scene import Bands, check_grid, scene_dataset, view_zenith
from pipeline.sensors import band_list
from pipeline.sensors.hyperion import HYPERION_BANDS, hyperion_bands, hyperion_detectors
from storage.schema import SceneError

LOOKED_FOR = "Hyperion L1T / L1GST (EO1H*_B001_L1T.TIF ... _B242_L1T.TIF and *_MTL_*.TXT)"
_BAND = r"(.+)_B(\d{3})(?:_(L1T|L1GST)\.(?:tiff?|L1T|L1GST)|\.(L1T))"
_HDF = r".+_(?:B\d{3}|HDF)\.L1GST"
_MTL = r".*MTL.*"
_TIMES = (
    "%Y %j %H:%M:%S", "%Y %j %H:%M:%S.%f", "%Y:%j:%H:%M:%S", "%Y:%j:%H:%M:%S.%f", "%Y-%m-%d",
)  # fmt: skip

_SCALE_LOW, _SCALE_HIGH = 1e-3, 1e6
"""Of DN per W m-2 sr-1 um-1: the known products have 40 and 80."""


def matches(product: Product) -> bool:
    """Say whether the product has a band file or an MTL of Hyperion."""
    return bool(product.find(_BAND) or product.find(_HDF) or product.find(r"EO1H.*MTL.*"))


def open_hyperion(product: Product) -> xr.Dataset:
    """Open an L1T or L1GST product; reads the MTL and all headers, and no pixel.

    Gains are the MTL's scaling factors inverted, wavelengths the USGS table's. `sun_azimuth` is
    given in 0..360 deg (the MTL has -180..180), `view_zenith` from SENSOR_LOOK_ANGLE.
    `scene_id` is the entity id with the level (`_1T`, `_1GST`) as in the archive's name: the
    same entity can be there at several levels. Uncalibrated bands, all 0, may be missing: then
    `band` has the others' numbers. `notes` says in words what is unusual and was accepted.

    Raises:
        SceneError: A file is missing, twice there, damaged or unlike the others, or the MTL's
            projection is not the files'.
    """
    members, level = _band_files(product)
    mtl = _mtl(product)
    where = product.where(mtl)
    values = metadata.parse_odl(product.read(mtl))
    files = list(members.values())
    header = _common_header(product, files, values, where)
    index = np.array(list(members)) - 1
    notes = notes_on_projection(header, values, where, product.where(files[0]))
    if len(members) < HYPERION_BANDS:
        notes.append(f"{HYPERION_BANDS - len(members)} uncalibrated bands are not in the product")
    prefix = files[0].basename[: files[0].basename.upper().rindex("_B")]
    attrs: dict[str, Any] = {
        "sensor": "hyperion", "platform": "EO-1", "level": level,
        "scene_id": scene_id(prefix, level[1:]), **sun_and_time(values, where),
        "nodata": 0, "crs": header.crs, "transform": list(header.transform), "notes": notes,
        "sources": product.sources([*files, mtl]),
    }  # fmt: skip
    shape = (len(files), *header.shape[1:])
    stack = raster_stack(product, files, shape, header.dtype)
    bands = _bands(values, where, index)
    return scene_dataset(stack.lazy(), bands, attrs, source=stack, numbers=list(members))


def scene_id(name: str, level: str) -> str:
    """Return `<entity id>_<level>`, e.g. EO1H1930242013205110KF_1T."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_-") or "unnamed"
    return f"{entity_id(name) or plain}_{level}"


def _bands(values: dict[str, str], where: str, index: NDArray[np.int_]) -> Bands:
    """Return the USGS table and the MTL's scale for the bands at `index`."""
    scale = [metadata.number(values, f"SCALING_FACTOR_{d}", where) for d in ("VNIR", "SWIR")]
    if not all(_SCALE_LOW <= factor <= _SCALE_HIGH for factor in scale):
        raise SceneError(
            where, expected="positive scaling factors", got=str(scale),
            todo="radiance cannot be told from this product",
        )  # fmt: skip
    detector = np.array(hyperion_detectors())[index]
    gain = np.where(detector == "VNIR", 1 / scale[0], 1 / scale[1])
    table = hyperion_bands()
    return Bands(table["wavelength"][index], table["fwhm"][index], detector.tolist(), gain,
                 np.zeros(len(index)))  # fmt: skip


def sun_and_time(values: dict[str, str], where: str) -> dict[str, str | float]:
    """Return what an MTL or MET file says of sun, view and time; NaN for angles it has not."""
    look = metadata.angle(values, "SENSOR_LOOK_ANGLE", where, low=-90, high=90)
    azimuth = metadata.angle(values, "SUN_AZIMUTH", where, low=-360, high=360)
    start = values.get("START_TIME") or metadata.text(values, "ACQUISITION_DATE", where)
    return {
        "acquired": metadata.utc(start, _TIMES, where),
        "sun_elevation": metadata.angle(values, "SUN_ELEVATION", where, low=-90, high=90),
        "sun_azimuth": azimuth % 360,
        "view_zenith": view_zenith(look) if math.isfinite(look) else math.nan,
    }


def _band_files(product: Product) -> tuple[dict[int, Member], str]:
    """Return the band files by number, in its order, and the level."""
    if hdf := product.find(_HDF):
        raise SceneError(
            product.where(hdf[0]), expected="one GeoTIFF a band (*_B001_L1GST.TIF)",
            got="L1Gst in HDF", todo="order the scene as GeoTIFF, or as L1R",
        )  # fmt: skip
    found: dict[int, list[Member]] = {}
    levels = set()
    for member in product.find(_BAND):
        match = re.fullmatch(_BAND, member.basename, re.IGNORECASE)
        assert match is not None  # noqa: S101  (`find` matched the same pattern)
        found.setdefault(int(match[2]), []).append(member)
        levels.add((match[3] or match[4]).upper())
    # Uncalibrated bands hold zeros alone: a product without them lacks no measurement.
    missing = sorted(set(band_list("hyperion", "calibrated").bands) - set(found))
    extra = [band for band, files in found.items() if len(files) > 1 or band > HYPERION_BANDS]
    extra += [0] if 0 in found else []
    if missing or extra or len(levels) != 1:
        count = sum(len(files) for files in found.values())
        detail = f" (missing {_some(missing)})" if missing else ""
        detail += f" (twice or unknown {_some(extra)})" if extra else ""
        raise SceneError(
            product.path,
            expected=f"{HYPERION_BANDS} band files of one level, B001 to B242, at least all "
                     "calibrated (B008 to B057, B077 to B224)",
            got=f"{count}{detail} of {sorted(levels) or 'no level'}",
            todo="fetch the whole product again, and keep products apart",
        )  # fmt: skip
    return {band: found[band][0] for band in sorted(found)}, levels.pop()


def _some(bands: list[int]) -> str:
    return ", ".join(f"B{band:03d}" for band in bands[:5]) + (", ..." if len(bands) > 5 else "")


def _mtl(product: Product) -> Member:
    """Return the MTL: named so, whatever its suffix, and text."""
    named = product.find(_MTL)
    for member in named:
        # Some MTL are named .TIF; and a band file can have MTL somewhere in its name.
        if member.size < 2**20 and b"ACQUISITION_DATE" in product.read(member):
            return member
    raise SceneError(
        product.path, expected="an MTL file (*MTL*) with ACQUISITION_DATE",
        got=f"{[m.basename for m in named] or 'no such file'}",
        todo="fetch the product again, with its metadata file",
    )  # fmt: skip


def _common_header(
    product: Product, members: list[Member], values: dict[str, str], where: str
) -> Header:
    """Return the one header that all band files must share."""
    headers = read_headers(product, members)
    first = headers[0]
    if first.shape[0] != 1 or first.dtype != "int16":
        raise SceneError(
            product.where(members[0]), expected="one band of int16",
            got=f"{first.shape[0]} of {first.dtype}", todo="fetch the product again",
        )  # fmt: skip
    for member, header in zip(members, headers, strict=True):
        if header != first:
            raise SceneError(
                product.where(member), expected=f"{first}, as {members[0].basename} has",
                got=f"{header}", todo="fetch the product again: its bands must share one grid",
            )  # fmt: skip
    check_grid(product.where(members[0]), *first.shape[1:])
    size = {"PRODUCT_LINES": first.shape[1], "PRODUCT_SAMPLES": first.shape[2]}
    for key, got in size.items():
        if key in values and metadata.number(values, key, where) != got:
            raise SceneError(
                where, expected=f"{key} = {got}, as the band files have",
                got=values[key], todo="fetch the product again: files of two products are mixed",
            )  # fmt: skip
    return first
