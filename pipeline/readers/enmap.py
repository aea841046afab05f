"""EnMAP L2A: one GeoTIFF of surface reflectance on a map, and METADATA.XML.

Source: names and layout of delivered products (DLR, EN-PCV-ICD-2009-2).
"""

from typing import Any

import numpy as np
import xarray as xr

from pipeline.readers import metadata
from pipeline.readers.gdal import read_headers
from pipeline.readers.members import FETCH_AGAIN, only, xml_root
from pipeline.readers.product import Product
from pipeline.readers.raster import raster_stack
from pipeline.readers.scene import Bands, scene_dataset
from storage.schema import SceneError

LOOKED_FOR = "EnMAP L2A (ENMAP*L2A*-SPECTRAL_IMAGE.TIF, *-METADATA.XML)"
_TIMES = ("%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ")
_VALUES = {
    "level": "base/level", "start": "base/temporalCoverage/startTime",
    "elevation": "specific/sunElevationAngle/center", "nodata": "specific/backgroundValue",
    "azimuth": "specific/sunAzimuthAngle/center", "view": "specific/viewingZenithAngle/center",
    "vnir": "specific/vnirProductQuality/expectedChannelsList",
}  # fmt: skip
_BAND = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")


def matches(product: Product) -> bool:
    """Say whether the product has EnMAP's image."""
    return bool(product.find(r"ENMAP.*-SPECTRAL_IMAGE\.TIFF?"))


def open_enmap(product: Product) -> xr.Dataset:
    """Open an L2A product; reads the XML and the image's header, and no pixel.

    `dn` are surface reflectance, as attrs `quantity` says: reflectance = gain * dn + offset.

    Raises:
        SceneError: A file is missing, damaged or not what it should be.
    """
    image = only(product, r"ENMAP.*-SPECTRAL_IMAGE\.TIFF?", "a *-SPECTRAL_IMAGE.TIF")
    xml = only(product, r"ENMAP.*-METADATA\.XML", "a *-METADATA.XML")
    where, root = product.where(xml), xml_root(product, xml)
    values = {name: (root.findtext(path) or "").strip() for name, path in _VALUES.items()}
    (header,) = read_headers(product, [image])
    if (values["level"], header.dtype, header.crs is None) != ("L2A", "int16", False):
        raise SceneError(
            product.where(image), expected="level L2A, int16, a map projection",
            got=f"{values['level'] or 'no level'}, {header.dtype}, {header.crs}",
            todo="only EnMAP's L2A as GeoTIFF can be read",
        )  # fmt: skip
    azimuth = metadata.angle(values, "azimuth", where, low=-360, high=360)
    attrs: dict[str, Any] = {
        "sensor": "enmap", "platform": "EnMAP", "level": "L2A", "quantity": "surface reflectance",
        "scene_id": image.basename[: image.basename.upper().index("-SPECTRAL_IMAGE")],
        "acquired": metadata.utc(values["start"], _TIMES, where),
        "sun_elevation": metadata.angle(values, "elevation", where, low=-90, high=90),
        "sun_azimuth": azimuth % 360,
        "view_zenith": metadata.angle(values, "view", where, low=-90, high=90),
        "nodata": int(metadata.number(values, "nodata", where)),
        "crs": header.crs, "transform": list(header.transform),
        "sources": product.sources([image, xml]),
    }  # fmt: skip
    stack = raster_stack(product, [image], header.shape, header.dtype)
    bands = _bands(root, header.shape[0], values["vnir"], where)
    return scene_dataset(stack.lazy(), bands, attrs, source=stack)


def _bands(root: Any, count: int, vnir: str, where: str) -> Bands:
    """Return the values of `bandID` 1, 2, ...; `vnir` are the numbers of that detector's."""
    found = root.findall("specific/bandCharacterisation/bandID")
    if [band.get("number") for band in found] != [str(i + 1) for i in range(count)]:
        raise SceneError(
            where, expected=f"bandID 1 to {count}, as the image has", got=f"{len(found)} of them",
            todo=FETCH_AGAIN,
        )  # fmt: skip
    rows = [{name: band.findtext(name) or "" for name in _BAND} for band in found]
    table = np.array([[metadata.number(row, name, where) for name in _BAND] for row in rows])
    numbers = {word.strip() for word in vnir.split(",")}
    detector = ["VNIR" if str(i + 1) in numbers else "SWIR" for i in range(count)]
    wavelength, fwhm, gain, offset = table.T
    return Bands(wavelength, fwhm, detector, gain, offset)
