"""GF-5, GF-5A and GF-5B AHSI L1: VN and SW GeoTIFFs with RPC, calibration text and XML.

Source: names and layout of delivered products; radiance = gain * DN + bias.
"""

import math
import re
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from numpy.typing import NDArray

from pipeline.readers import metadata
from pipeline.readers.product import Member, Product
from pipeline.readers.raster import Header, chunk_rows, lazy_stack, read_headers
from pipeline.readers.scene import Bands, scene_dataset
from pipeline.sensors import SENSORS
from storage.schema import SceneError

LOOKED_FOR = "GF-5 / GF-5B AHSI (*_AHSI_*_VN.tif, *_SW.tif, .rpb, .xml, RadCal, Spectralresponse)"
PLATFORMS = {"GF5": "GF-5", "GF5A": "GF-5A", "GF5B": "GF-5B"}
AHSI_BANDS = SENSORS["ahsi"].counts
FILES = {"VNIR": "VN", "SWIR": "SW"}
_TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f")
_RASTER = r".*_{}\.(tif|tiff|geotiff)"
_FETCH_AGAIN = "fetch the whole product again"


def matches(product: Product) -> bool:
    """Say whether the product has a VN or SW raster of AHSI, or one of its text files."""
    rasters = product.find(r".*AHSI.*_(VN|SW)\.(tif|tiff|geotiff)")
    return bool(rasters or product.find(r".*AHSI.*(RadCal|Spectralresponse).*"))


def open_ahsi(product: Product) -> xr.Dataset:
    """Open an AHSI product; reads text and headers, and no pixel.

    VNIR and SWIR are stacked on band (SWIR from 151) pixel by pixel, which needs grids of one
    size. Gains, wavelengths and FWHM are the product's own. `sun_elevation` = 90 - SolarZenith,
    `sun_azimuth` in 0..360 deg. StartTime is taken as UTC, which the product does not say.
    `rpc` is the VN file's. `scale_factor` is the XML's ScaleFactor, 1 if it has none.

    Raises:
        SceneError: A file is missing, damaged or not what it should be.
    """
    rasters = {
        d: _only(product, _RASTER.format(stem), f"a *_{stem}.tif") for d, stem in FILES.items()
    }
    rpbs = {d: _rpb(product, rasters[d]) for d in FILES}
    xml = _only(product, r"(?!.*_check\.xml)(?!.*\.aux\.xml).*AHSI.*\.xml", "a *_AHSI_*.xml")
    gains = {d: _sidecar(product, d, "RadCal") for d in FILES}
    responses = {d: _sidecar(product, d, "Spectralresponse") for d in FILES}
    values = _xml_values(product, xml)
    header = _headers(product, rasters, values, product.where(xml))
    gain = [_table(product, gains[d], AHSI_BANDS[d], default=0.0) for d in FILES]
    response = [_response(product, responses[d], AHSI_BANDS[d]) for d in FILES]
    calibration, spectral = np.concatenate(gain), np.concatenate(response)
    detector = [d for d in FILES for _ in range(AHSI_BANDS[d])]
    bands = Bands(spectral[:, 0], spectral[:, 1], detector, calibration[:, 0], calibration[:, 1])
    name = re.sub(r"(?i)_VN\.\w+$", "", rasters["VNIR"].basename)
    where = product.where(xml)
    rpb = rpbs["VNIR"]
    used = [*rasters.values(), *rpbs.values(), xml, *gains.values(), *responses.values()]
    attrs: dict[str, Any] = {
        "sensor": "ahsi", "platform": _platform(name), "level": "L1",
        "scene_id": name.replace(".", "p"),
        **_sun_and_time(values, where), "nodata": 0,
        "rpc": metadata.parse_rpb(product.read(rpb), where=product.where(rpb)),
        "scale_factor": metadata.number({"ScaleFactor": "1"} | values, "ScaleFactor", where),
        "sources": product.sources(dict.fromkeys(used)),
    }  # fmt: skip
    rows = chunk_rows(len(detector), header.shape[2], packed=product.kind == "tgz")
    stacks = [
        lazy_stack(product, [rasters[d]], (AHSI_BANDS[d], *header.shape[1:]), header.dtype, rows)
        for d in FILES
    ]
    return scene_dataset(da.concatenate(stacks), bands, attrs)


def _only(product: Product, pattern: str, what: str) -> Member:
    found = product.find(pattern)
    if len(found) != 1:
        raise SceneError(
            product.path, expected=f"{what} file, one",
            got=f"{[m.basename for m in found] or 'none'}", todo=_FETCH_AGAIN,
        )  # fmt: skip
    return found[0]


def _rpb(product: Product, raster: Member) -> Member:
    """Return a raster's RPC file: of its name, or one for both rasters."""
    stem = raster.basename.rpartition(".")[0]
    own = product.find(rf"{re.escape(stem)}\.rpb")
    return own[0] if own else _only(product, r"(?!.*_(VN|SW)\.rpb).*\.rpb", f"a {stem}.rpb")


def _sidecar(product: Product, detector: str, kind: str) -> Member:
    """Return a calibration text file; GF-5 and GF-5B order the words of its name otherwise."""
    words = rf".*({kind}.*{detector}|{detector}.*{kind}).*"
    return _only(product, words, f"a *_{kind}_{detector}.raw")


def _table(
    product: Product, member: Member, rows: int, *, default: float | None
) -> NDArray[np.float64]:
    """Return a text table (band, 2); a missing second column is `default`, or NaN."""
    where = product.where(member)
    lines = product.read(member).decode("utf-8-sig", errors="replace").splitlines()
    values = [[_number(word, where) for word in re.split(r"[,;\s]+", line.strip(" \t,;"))]
              for line in lines if line.strip(" \t,;\0")]  # fmt: skip
    widths = {len(row) for row in values}
    if len(values) != rows or widths not in ({1}, {2}):
        raise SceneError(
            where, expected=f"{rows} lines of one or two numbers",
            got=f"{len(values)} lines of {sorted(widths)}", todo=_FETCH_AGAIN,
        )  # fmt: skip
    second = math.nan if default is None else default
    return np.array([(*row, second)[:2] for row in values])


def _response(product: Product, member: Member, rows: int) -> NDArray[np.float64]:
    """Return centre and FWHM (band, 2) [nm]; without an FWHM column the channel spacing."""
    table = _table(product, member, rows, default=None)
    if np.isnan(table[:, 1]).all():
        table[:, 1] = np.abs(np.gradient(table[:, 0]))
    centre, fwhm = table.T
    if not ((centre > 300) & (centre < 2700) & (fwhm > 0) & (fwhm < 100)).all():
        raise SceneError(
            product.where(member), expected="wavelengths in 300..2700 nm, FWHM in 0..100 nm",
            got=f"{centre.min():g}..{centre.max():g}, {fwhm.min():g}..{fwhm.max():g}",
            todo="check that the file is in nm",
        )  # fmt: skip
    return table


def _number(word: str, where: str) -> float:
    return metadata.number({"each value": word}, "each value", where)


def _xml_values(product: Product, member: Member) -> dict[str, str]:
    """Return the text of every element that has some, by its name."""
    where = product.where(member)
    try:
        root = ElementTree.fromstring(product.read(member))
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise SceneError(where, expected="plain XML", got=f"{error}", todo=_FETCH_AGAIN) from error
    values: dict[str, str] = {}
    for element in root.iter():
        values.setdefault(element.tag, (element.text or "").strip())
    return values


def _headers(
    product: Product, rasters: dict[str, Member], values: dict[str, str], where: str
) -> Header:
    """Return VNIR's header after checks of both rasters."""
    headers = dict(zip(rasters, read_headers(product, rasters.values()), strict=True))
    for detector, header in headers.items():
        expected, first = AHSI_BANDS[detector], headers["VNIR"]
        if header.shape[0] != expected or header.dtype not in ("uint16", "int16"):
            raise SceneError(
                product.where(rasters[detector]),
                expected=f"{expected} bands of uint16 or int16",
                got=f"{header.shape[0]} of {header.dtype}",
                todo="only the 150 + 180 bands of GF-5 AHSI can be read",
            )  # fmt: skip
        if (header.shape[1:], header.dtype) != (first.shape[1:], first.dtype):
            raise SceneError(
                product.where(rasters[detector]),
                expected=f"VN's {first.shape[1:]} pixels of {first.dtype}",
                got=f"{header.shape[1:]} of {header.dtype}",
                todo="VN and SW of different grids cannot be stacked yet",
            )  # fmt: skip
    size = dict(zip(("LinesInPixels", "SamplesInPixels"), headers["VNIR"].shape[1:], strict=True))
    for key, got in size.items():
        if values.get(key) and metadata.number(values, key, where) != got:
            raise SceneError(
                where, expected=f"{key} {got}, as the rasters have", got=values[key],
                todo="fetch the product again: files of two products are mixed",
            )  # fmt: skip
    return headers["VNIR"]


def _platform(name: str) -> str:
    prefix = name.partition("_")[0].upper()
    return PLATFORMS.get(prefix, prefix)


def _sun_and_time(values: dict[str, str], where: str) -> dict[str, str | float]:
    zenith = metadata.angle(values, "SolarZenith", where, low=0, high=180)
    azimuth = metadata.angle(values, "SolarAzimuth", where, low=-360, high=360)
    return {
        "acquired": metadata.utc(metadata.text(values, "StartTime", where), _TIMES, where),
        "sun_elevation": 90 - zenith,
        "sun_azimuth": azimuth % 360,
        "view_zenith": metadata.angle(values, "SatelliteZenith", where, low=-90, high=90),
    }
