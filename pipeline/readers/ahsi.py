"""AHSI L1 of GF-5, GF-5A, GF-5B, ZY1-02D and ZY1-02E: two GeoTIFFs with RPC, text and XML.

Source: names and layout of delivered products; radiance = gain * DN + bias.
"""

import re
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline import rpc
from pipeline.readers import metadata
from pipeline.readers.ahsi_text import (
    calibration,
    check_kind,
    response,
    sidecar_pattern,
    sun_and_time,
    xml_values,
)
from pipeline.readers.gdal import Header, read_headers
from pipeline.readers.members import only
from pipeline.readers.product import Member, Product
from pipeline.readers.raster import raster_stack
from pipeline.readers.scene import Bands, scene_dataset
from pipeline.sensors import SENSORS
from storage.schema import SceneError

LOOKED_FOR = (
    "AHSI of GF-5, GF-5A, GF-5B, ZY1-02D or ZY1-02E "
    "(*_AHSI_*_VN.tif, *_SW.tif, .rpb, .xml, RadCal, Spectralresponse)"
)
PLATFORMS = {
    "GF5": "GF-5", "GF5A": "GF-5A", "GF501A": "GF-5A", "GF5B": "GF-5B", "GF502": "GF-5B",
    "ZY1E": "ZY1-02D", "ZY102D": "ZY1-02D", "ZY1F": "ZY1-02E", "ZY102E": "ZY1-02E",
}  # fmt: skip
"""By what products' names and XML call them, in capitals without dashes."""
FILES = {"VNIR": "VN", "SWIR": "SW"}
NODATA = 0
_FARTHEST = 10.0
"""Pixels; what lies farther apart are no spectra."""
_RASTER = r".*_{}\.(tif|tiff|geotiff)"

type Rpcs = Mapping[str, Mapping[str, Any]]


def matches(product: Product) -> bool:
    """Say whether the product has a VN or SW raster of AHSI, or one of its text files."""
    rasters = product.find(r".*AHSI.*_(VN|SW)\.(tif|tiff|geotiff)")
    return bool(rasters or product.find(r".*AHSI.*(RadCal|Spectralresponse).*"))


def open_ahsi(product: Product) -> xr.Dataset:
    """Open an AHSI product; reads text and headers, and no pixel.

    Sensor `ahsi` has 150 + 180 bands, `zy1_ahsi` 76 + 90. Both detectors are on VN's grid: SW is
    moved by the whole pixels that the RPCs imply, `dn`[y, x] = SW[y + rows, x + cols] with
    attrs `swir_shift` = [rows, cols], and where it has no pixel, `nodata` and true in `vacated`
    (band, y, x). `swir_shift_residual` [pixel]: how far apart this leaves the RPCs at most.

    Gains, wavelengths and FWHM are the product's own; `wavelength_source` says if a ZY1 has none
    and its table was taken. `bands_without_gain`: those whose gain is not positive.
    `sun_elevation` = 90 - SolarZenith, `sun_azimuth` in 0..360 deg, `time_zone` see
    `sun_and_time`. `rpc` is the VN file's. `scale_factor` is the XML's, 1 if it has none.

    Raises:
        SceneError: A file is missing, damaged or not what it should be.
    """
    rasters = {
        d: only(product, _RASTER.format(stem), f"a *_{stem}.tif") for d, stem in FILES.items()
    }
    name = re.sub(r"(?i)_VN\.\w+$", "", rasters["VNIR"].basename)
    rpbs = {d: _rpb(product, rasters[d]) for d in FILES}
    xml = _xml(product, name)
    values, where = xml_values(product, xml), product.where(xml)
    check_kind(values, where)
    headers = dict(zip(FILES, read_headers(product, rasters.values()), strict=True))
    sensor = _sensor(product, headers)
    platform = _platform(name, sensor, values, where)
    _check_sizes(headers, values, where)
    bands, texts = _bands(product, sensor)
    geometry = _geometry(product, rpbs, headers)
    centre = geometry["rpc"]["long_off"], geometry["rpc"]["lat_off"]
    attrs: dict[str, Any] = {
        "sensor": sensor, "platform": platform, "level": "L1", "scene_id": name.replace(".", "p"),
        **sun_and_time(values, centre, where), "nodata": NODATA, **geometry,
        "scale_factor": metadata.number({"ScaleFactor": "1"} | values, "ScaleFactor", where),
        "bands_without_gain": (1 + np.flatnonzero(np.asarray(bands.gain) <= 0)).tolist(),
        "wavelength_source": "product" if len(texts) == 2 * len(FILES) else f"table {sensor}",
        "sources": product.sources(dict.fromkeys([*rasters.values(), *rpbs.values(), xml, *texts])),
    }  # fmt: skip
    vnir, swir = _stacks(product, rasters, headers)
    swir, beyond = _on_grid(swir, vnir.shape[1:], geometry["swir_shift"], vnir.chunks[1][0])
    scene = scene_dataset(da.concatenate([vnir, swir]), bands, attrs)
    return scene.assign(vacated=_vacated(scene, beyond)) if beyond.any() else scene


def _rpb(product: Product, raster: Member) -> Member:
    """Return a raster's RPC file: of its name, or one for both rasters."""
    stem = raster.basename.rpartition(".")[0]
    own = product.find(rf"{re.escape(stem)}\.rpb")
    return own[0] if own else only(product, r"(?!.*_(VN|SW)\.rpb).*\.rpb", f"a {stem}.rpb")


def _xml(product: Product, name: str) -> Member:
    """Return the XML of the product's name, or else the one that is there beside checks."""
    own = product.find(rf"{re.escape(name)}\.xml")
    if len(own) == 1:
        return own[0]
    return only(product, r"(?!.*_check\.xml)(?!.*\.aux\.xml).*AHSI.*\.xml", "a *_AHSI_*.xml")


def _sensor(product: Product, headers: Mapping[str, Header]) -> str:
    """Return the sensor that has as many bands as the rasters."""
    got = {d: header.shape[0] for d, header in headers.items()}
    kinds = {header.dtype for header in headers.values()}
    known = {name: SENSORS[name].counts for name in ("ahsi", "zy1_ahsi")}
    sensor = next((name for name, counts in known.items() if counts == got), None)
    if sensor is None or kinds not in ({"uint16"}, {"int16"}):
        raise SceneError(
            product.path,
            expected="150 + 180 bands (GF-5, GF-5A, GF-5B) or 76 + 90 (ZY1-02D, ZY1-02E) in VN and "
            "SW, both uint16 or both int16",
            got=f"{got['VNIR']} + {got['SWIR']} of {' and '.join(sorted(kinds))}",
            todo="no other set of AHSI's bands is known: fetch the product again, or ask its "
            "supplier for one with all bands",
        )  # fmt: skip
    return sensor


def _platform(name: str, sensor: str, values: Mapping[str, str], where: str) -> str:
    """Return the satellite, which the name, the XML and the number of bands must agree on."""
    words = name.upper().partition("_AHSI")[0], values.get("SatelliteID", "").upper()
    named, stated = (PLATFORMS.get(re.sub(r"[^A-Z0-9]", "", word)) for word in words)
    platform = named or stated
    wanted = {"zy1_ahsi": "ZY1", "ahsi": "GF"}[sensor]
    if platform is None or (stated or platform) != platform or not platform.startswith(wanted):
        raise SceneError(
            where, expected=f"one satellite of {sorted(set(PLATFORMS.values()))} in the name and "
            f"SatelliteID, {wanted}... for its number of bands", got=" and ".join(words),
            todo="give the product its own name; keep the files of products apart",
        )  # fmt: skip
    return platform


def _check_sizes(headers: Mapping[str, Header], values: Mapping[str, str], where: str) -> None:
    shapes = [header.shape for header in headers.values()]
    bands, lines, samples = ({shape[axis] for shape in shapes} for axis in range(3))
    allowed = {
        "BandsCount": bands | {sum(shape[0] for shape in shapes)},
        "LinesInPixels": lines, "SamplesInPixels": samples,
    }  # fmt: skip
    for key, sizes in allowed.items():
        if values.get(key) and metadata.number(values, key, where) not in sizes:
            raise SceneError(
                where, expected=f"{key} {' or '.join(map(str, sorted(sizes)))}, as the rasters "
                "have", got=values[key],
                todo="fetch the product again: files of two products are mixed",
            )  # fmt: skip


def _bands(product: Product, sensor: str) -> tuple[Bands, list[Member]]:
    """Return the bands' values, and the text files that they are from."""
    counts = SENSORS[sensor].counts
    used, gains, responses = [], [], []
    for detector, count in counts.items():
        radcal = sidecar_pattern(detector, "RadCal")
        used.append(only(product, radcal, f"a *_RadCal_{detector}.raw"))
        gains.append(calibration(product, used[-1], count))
    patterns = {d: sidecar_pattern(d, "Spectralresponse") for d in counts}
    if sensor == "zy1_ahsi" and not any(product.find(p) for p in patterns.values()):
        table = SENSORS[sensor]
        responses.append(np.stack([table.wavelength, table.fwhm], axis=1))
    else:
        for detector, count in counts.items():
            what = f"a *_Spectralresponse_{detector}.raw"
            used.append(only(product, patterns[detector], what))
            responses.append(response(product, used[-1], count))
    gain, offset = np.concatenate(gains).T
    wavelength, fwhm = np.concatenate(responses).T
    return Bands(wavelength, fwhm, list(SENSORS[sensor].detector), gain, offset), used


def _geometry(
    product: Product, rpbs: Mapping[str, Member], headers: Mapping[str, Header]
) -> dict[str, Any]:
    """Return the attrs `rpc`, `swir_shift` and `swir_shift_residual`."""
    rpcs = {d: metadata.parse_rpb(product.read(m), where=product.where(m)) for d, m in rpbs.items()}
    shapes = {d: header.shape[1:] for d, header in headers.items()}
    shift, residual = _shift(rpcs, shapes, product.where(rpbs["SWIR"]))
    return {"rpc": rpcs["VNIR"], "swir_shift": shift, "swir_shift_residual": round(residual, 3)}


def _shift(
    rpcs: Rpcs, shapes: Mapping[str, tuple[int, ...]], where: str
) -> tuple[list[int], float]:
    """Return by how many whole rows and columns SW lies off VN, and what is left [pixel].

    From 7 x 7 places of VN's image, at its height offset, and where the RPC of SW has them.
    """
    y, x = shapes["VNIR"]
    rows, cols = np.meshgrid(np.linspace(0.5, y - 0.5, 7), np.linspace(0.5, x - 0.5, 7))
    lon, lat = rpc.lonlat(rpcs["VNIR"], rows, cols)
    there = rpc.rowcol(rpcs["SWIR"], lon, lat, rpcs["VNIR"]["height_off"])
    offsets = np.nan_to_num(np.stack(there) - [rows, cols], nan=np.inf)
    shift = np.round(np.median(offsets, axis=(1, 2)))
    residual = (
        np.abs(offsets - shift[:, None, None]).max() if np.isfinite(offsets).all() else np.inf
    )
    # No number at all, or no pixel of VN that SW has as well.
    overlap = all(-n < s < m for s, n, m in zip(shift, (y, x), shapes["SWIR"], strict=True))
    if not residual < _FARTHEST or not overlap:
        raise SceneError(
            where, expected="RPC of VN and SW that overlap, and agree within "
            f"{_FARTHEST:g} pixels when SW is moved by whole ones",
            got=f"SW {shift[0]:g} rows and {shift[1]:g} columns off, {residual:g} pixels left",
            todo="fetch the product again: files of two products are mixed, or the RPC damaged",
        )  # fmt: skip
    return shift.astype(int).tolist(), float(residual)


def _stacks(
    product: Product, rasters: Mapping[str, Member], headers: Mapping[str, Header]
) -> tuple[da.Array, da.Array]:
    stacks = [
        raster_stack(product, [rasters[d]], headers[d].shape, headers[d].dtype) for d in FILES
    ]
    rows = stacks[0].rows(sum(stack.shape[0] for stack in stacks))
    vnir, swir = (stack.lazy(rows) for stack in stacks)
    return vnir, swir


def _on_grid(
    swir: da.Array, shape: tuple[int, ...], shift: list[int], rows: int
) -> tuple[da.Array, NDArray[np.bool_]]:
    """Return SW on VN's grid of `shape`, lazily, cut and padded; and where it was padded (y, x)."""
    beyond = np.ones(shape, bool)
    kept: list[slice] = [slice(None)]
    inside, pads = [], [(0, 0)]
    for wanted, there, off in zip(shape, swir.shape[1:], shift, strict=True):
        first, end = max(0, off), min(there, wanted + off)
        kept.append(slice(first, end))
        inside.append(slice(first - off, end - off))
        pads.append((first - off, wanted - (end - off)))
    beyond[tuple(inside)] = False
    if swir.shape[1:] == shape and not beyond.any():
        return swir, beyond
    moved = da.pad(swir[tuple(kept)], pads, constant_values=NODATA)
    return moved.rechunk((-1, rows, -1)), beyond


def _vacated(scene: xr.Dataset, beyond: NDArray[np.bool_]) -> xr.DataArray:
    """Return the samples of SW outside of its raster (band, y, x), lazily, in chunks as `dn`."""
    rows = da.from_array(beyond, chunks=scene.dn.data.chunks[1:])
    swir = da.from_array(scene.detector.values == "SWIR", chunks=-1)
    return xr.DataArray(swir[:, None, None] & rows, dims=("band", "y", "x"))
