"""Where land is, by a file: a GeoTIFF (non-zero is land) or a GeoJSON file of polygons."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

Floats = NDArray[np.float64]

type Box = tuple[float, float, float, float]
"""West, south, east, north [deg]; beyond 180 if it crosses the date line."""

_LONLAT = CRS.from_epsg(4326)
_PIXELS = 1024
"""Most pixels along a side that are held at once: a finer mask is read by every n-th."""
_GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_CACHEMAX": 64 * 2**20}
_EARTH = (-180.0, -90.0, 180.0, 90.0)
_MARGIN = 1e-6
"""Around points [deg]: one alone has a box, too."""
# The checksum is of this file: neither another one nor coarser pixels may have a say.
_ALONE = {"driver": "GTiff", "OVERVIEW_LEVEL": "NONE", "GEOREF_SOURCES": "INTERNAL"}


@dataclass(frozen=True)
class _Polygon:
    rings: tuple[Floats, ...]
    """Outline and holes, each (corner, 2) [deg]."""
    box: Box


@dataclass(frozen=True, eq=False)
class LandMask:
    """A file that was looked at; a GeoTIFF's pixels stay in it."""

    path: Path
    sha256: str
    polygons: tuple[_Polygon, ...] | None
    """Of a GeoJSON file; None: it is a GeoTIFF."""
    box: Box
    """What it speaks of: a GeoTIFF's pixels; GeoJSON's `bbox`, or the box around its polygons."""


def load(path: Path, sha256: str = "") -> LandMask:
    """Return a land mask, read once a process unless the file changes.

    Args:
        path: A GeoTIFF of one band with georeference, or GeoJSON in longitude and latitude.
        sha256: What the file must have; "": any.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither kind, says not where it lies, or is another file than expected.
    """
    try:
        look = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"split.land_mask: expected a GeoTIFF or GeoJSON file, found nothing at {path}; every "
            "worker must see it at that path"
        ) from None
    if not path.is_file():
        raise _wrong(path, "a folder", "name the file in it")
    mask = _load(path, look.st_size, look.st_mtime_ns)
    if sha256 not in ("", mask.sha256):
        raise ValueError(
            f"split.land_mask: expected {path} with sha256 {sha256}, got {mask.sha256}: the mask "
            "changed during the build, or a worker has another; build again with one mask for all"
        )
    return mask


def is_land(mask: LandMask, lon: Floats, lat: Floats) -> Floats:
    """Return 1 for land, 0 for water, NaN where the mask says nothing.

    Args:
        mask: From `load`.
        lon: Of points not farther apart than a few blocks (point) [deg].
        lat: Likewise.
    """
    west, south, east, north = mask.box
    turn = np.floor((lon - west) / 360)
    found = np.full(lon.shape, np.nan)
    # On each side of the mask's edge by itself: a window around both would be the whole mask.
    for side in np.unique(turn):
        x = lon - 360 * side
        here = (turn == side) & (x <= east) & (lat >= south) & (lat <= north)
        if not here.any():
            continue
        if mask.polygons is None:
            found[here] = _in_raster(mask.path, x[here], lat[here])
        else:
            found[here] = _in_polygons(mask.polygons, x[here], lat[here])
    return found


@lru_cache(maxsize=4)
def _load(path: Path, _size: int, _changed: int) -> LandMask:
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not start.startswith(b"{"):
        return LandMask(path, digest, None, _raster_box(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise _wrong(path, f"JSON that cannot be read ({error})", "write it anew") from error
    try:
        polygons = tuple(_polygons(path, content))
    except (KeyError, TypeError, IndexError) as error:
        raise _wrong(path, f"GeoJSON that lacks something ({error!r})", "write it anew") from error
    if not polygons:
        raise _wrong(path, "GeoJSON without a polygon", "give land as polygons")
    return LandMask(path, digest, polygons, _polygon_box(path, content, polygons))


def _raster_box(path: Path) -> Box:
    """Return where a GeoTIFF lies; refuse what is none of one band that says so."""
    todo = "save the mask as a GeoTIFF of one band with CRS and transform"
    with rasterio.Env(**_GDAL):
        try:
            with rasterio.open(path, **_ALONE) as file:
                bands, kind, crs, bounds = file.count, file.dtypes[0], file.crs, file.bounds
                placed = bool(crs) and not file.transform.is_identity
        except RasterioError as error:
            raise _wrong(path, f"neither ({error})", todo) from error
        if bands != 1 or kind.startswith("complex"):
            raise _wrong(path, f"{bands} bands of {kind}", todo)
        if not placed:
            raise _wrong(path, "a GeoTIFF without a georeference of its own", todo)
        west, south, east, north = bounds
        if crs.is_geographic:
            return min(west, east), min(south, north), max(west, east), max(south, north)
        try:
            west, south, east, north = transform_bounds(crs, _LONLAT, *bounds)
        except CPLE_BaseError:  # a map of the Earth with corners beyond it
            return _EARTH
    if not np.isfinite((west, south, east, north)).all():
        return _EARTH
    # The edges are bent between the points that were looked at.
    return west - 0.1, south - 0.1, (east if east >= west else east + 360) + 0.1, north + 0.1


def _polygon_box(path: Path, content: Any, polygons: tuple[_Polygon, ...]) -> Box:
    boxes = np.array([polygon.box for polygon in polygons])
    west, south, east, north = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
    if not (abs(boxes) <= (540, 90, 540, 90)).all():
        raise _wrong(path, f"corners up to {east:g}, {north:g}", "GeoJSON is in lon, lat [deg]")
    given = content.get("bbox")
    if isinstance(given, list) and len(given) in (4, 6):
        west, south = given[:2]
        east, north = given[len(given) // 2 :][:2]
    return float(west), float(south), float(east if east >= west else east + 360), float(north)


def _polygons(path: Path, node: Any) -> Iterator[_Polygon]:
    """Yield the polygons of a GeoJSON object, whatever it is nested in."""
    kind = node.get("type") if isinstance(node, dict) else None
    crs = str((node.get("crs") or {}).get("properties", {}).get("name", "")) if kind else ""
    if crs and not crs.endswith(("CRS84", "4326")):
        raise _wrong(path, f"GeoJSON in {crs}", "write it in longitude and latitude (EPSG:4326)")
    if kind == "FeatureCollection":
        parts = node["features"]
    elif kind == "GeometryCollection":
        parts = node["geometries"]
    elif kind == "Feature":
        parts = [] if node["geometry"] is None else [node["geometry"]]
    elif kind == "MultiPolygon":
        parts = [{"type": "Polygon", "coordinates": rings} for rings in node["coordinates"]]
    elif kind == "Polygon":
        if node["coordinates"]:
            rings = tuple(
                np.array([[float(place[0]), float(place[1])] for place in ring])
                for ring in node["coordinates"]
            )
            yield _Polygon(rings, (*rings[0].min(axis=0).tolist(), *rings[0].max(axis=0).tolist()))
        return
    else:
        raise _wrong(path, f"JSON of type {kind}", "give land as GeoJSON polygons")
    for part in parts:
        yield from _polygons(path, part)


def _wrong(path: Path, got: str, todo: str) -> ValueError:
    return ValueError(
        f"split.land_mask: expected a GeoTIFF (non-zero is land) or GeoJSON polygons at {path}, "
        f"got {got}: {todo}"
    )


def _to_map(crs: CRS, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return map coordinates, infinite for points that the projection has none for."""
    if crs.is_geographic:
        return lon, lat
    try:
        x, y = transform(_LONLAT, crs, lon, lat)
    except CPLE_BaseError:  # one such point, and there are none
        if lon.size == 1:
            return np.array([np.inf]), np.array([np.inf])
        halves = zip(np.array_split(lon, 2), np.array_split(lat, 2), strict=True)
        x, y = np.concatenate([_to_map(crs, *half) for half in halves], axis=1)
    return np.asarray(x), np.asarray(y)


def _in_raster(path: Path, lon: Floats, lat: Floats) -> Floats:
    """Return `is_land` of points by a GeoTIFF; its nodata, unless that is 0, says nothing."""
    found = np.full(lon.shape, np.nan)
    with rasterio.Env(**_GDAL), rasterio.open(path, **_ALONE) as file:
        x, y = _to_map(file.crs, lon, lat)
        col, row = (np.floor(place) for place in ~file.transform @ (x, y))
        inside = (row >= 0) & (row < file.height) & (col >= 0) & (col < file.width)
        if not inside.any():
            return found
        row, col = row[inside], col[inside]
        top, left = int(row.min()), int(col.min())
        size = int(row.max()) - top + 1, int(col.max()) - left + 1
        shape = tuple(min(each, _PIXELS) for each in size)
        pixels = file.read(1, window=Window(left, top, size[1], size[0]), out_shape=shape)
        nodata = file.nodata
    value = pixels[
        ((row - top) * (shape[0] / size[0])).astype(int),
        ((col - left) * (shape[1] / size[1])).astype(int),
    ]
    nothing = np.isnan(value) | (value == nodata if nodata else False)
    found[inside] = np.where(nothing, np.nan, value != 0)
    return found


def _in_polygons(polygons: tuple[_Polygon, ...], lon: Floats, lat: Floats) -> Floats:
    """Return `is_land` of points by polygons, drawn on a grid around the points."""
    west, south = lon.min() - _MARGIN, lat.min() - _MARGIN
    east, north = lon.max() + _MARGIN, lat.max() + _MARGIN
    size = _PIXELS // 2
    drawn = np.zeros((size, size), bool)
    for turn in (-360, 0, 360):
        near = [{"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon.rings]}
                for polygon in polygons if _touch(polygon.box, west + turn, east + turn)
                and polygon.box[1] <= north and polygon.box[3] >= south]  # fmt: skip
        if near:
            bounds = from_bounds(west + turn, south, east + turn, north, size, size)
            drawn |= rasterize(near, drawn.shape, transform=bounds, dtype="uint8") > 0
    row = (north - lat) / (north - south) * size
    col = (lon - west) / (east - west) * size
    land: Floats = drawn[row.astype(int), col.astype(int)].astype(float)
    return land


def _touch(box: Box, west: float, east: float) -> bool:
    return box[0] <= east and box[2] >= west
