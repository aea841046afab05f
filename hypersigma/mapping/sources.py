"""Scenes that are mapped, read by their rows: rasters, tile stores, and cubes in memory.

Shape letters: C bands, n rows, W columns.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.control
import rasterio.crs
import rasterio.errors
import rasterio.rpc
import rasterio.transform
import xarray as xr
from numpy.typing import NDArray
from rasterio.windows import Window

from hypersigma.cubes.cube import Cube, in_nm, samples
from hypersigma.cubes.raster import data_file, wavelengths
from hypersigma.mapping.cog import GDAL
from storage.schema import INTEGER_FILL, TILE_SIZE

MIN_GCPS = 4


class Source(Protocol):
    """A scene: `height` x `width` pixels of some bands, in physical units."""

    name: str
    height: int
    width: int
    bands: int
    wavelength: tuple[float, ...] | None
    """Band centres [nm]; None: not known."""
    units: str | None
    """Of the values; None: not known."""
    placed: dict[str, Any]
    """Its georeference, as keywords for `rasterio.open`; empty: none."""

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the rows from `first` up to `last`: (C, n, W), and which pixels are valid (n, W).

        Pixels without a measurement are NaN.
        """


class OneDate(Source, Protocol):
    """A scene as it was stored."""

    def leave_out(self, numbers: Sequence[int]) -> None:
        """Read on without the bands of these numbers, from 1."""


class CubeSource:
    """A cube in memory."""

    def __init__(self, cube: Cube) -> None:
        self.name, self.units = cube.name, cube.units
        self.height, self.width = cube.sides
        self.placed: dict[str, Any] = {}
        self._take(cube)
        if cube.transform is not None:
            grid = rasterio.transform.Affine(*cube.transform[:6])
            self.placed = {"transform": grid} | ({"crs": cube.crs} if cube.crs else {})

    def leave_out(self, numbers: Sequence[int]) -> None:
        self._take(self._cube.without_bands([number - 1 for number in numbers]))

    def _take(self, cube: Cube) -> None:
        self._cube, self.bands = cube, cube.bands
        self.wavelength = None if cube.wavelength is None else tuple(cube.wavelength.tolist())

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        valid = self._cube.valid_HW[first:last]
        return _physical(self._cube.x_HWC[first:last].transpose(2, 0, 1), valid,
                         self._cube.scale), valid  # fmt: skip


class RasterSource:
    """A GeoTIFF, an ENVI cube, or what else GDAL opens; only the rows that are asked for are read.

    Args:
        path: The image, or an ENVI header.
        scale: Stored number of a physical 1.
        nodata: The stored number of no measurement; None: the file's own.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: GDAL cannot open it.
    """

    def __init__(self, path: Path, *, scale: float = 1.0, nodata: float | None = None) -> None:
        self._path, self._scale = data_file(path), scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            try:
                self._file = rasterio.open(self._path)
            except rasterio.errors.RasterioIOError as error:
                raise ValueError(f"{self._path}: expected an image, got: {error}") from error
        self.name = self._path.name
        self.units: str | None = None
        self.height, self.width = self._file.height, self._file.width
        self._kept = list(range(1, self._file.count + 1))
        self.bands = len(self._kept)
        found = wavelengths(self._file)
        self.wavelength = None if found is None else tuple(in_nm(np.array(found)).tolist())
        self._nodata = self._file.nodata if nodata is None else nodata
        self.placed = _placed(self._file)

    def leave_out(self, numbers: Sequence[int]) -> None:
        if self.wavelength is not None:
            self.wavelength = tuple(
                one for band, one in zip(self._kept, self.wavelength, strict=True)
                if band not in numbers
            )  # fmt: skip
        self._kept = [band for band in self._kept if band not in numbers]
        self.bands = len(self._kept)

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        window = Window(0, first, self.width, last - first)
        with rasterio.Env(**GDAL):
            stored_CnW = self._file.read(self._kept, window=window)
        valid = samples(stored_CnW, self._nodata).all(0) & (stored_CnW != 0).any(0)
        return _physical(stored_CnW, valid, self._scale), valid


class StoreSource:
    """A scene of a tile store; where it has no tile there is no measurement.

    Args:
        scene: What `storage.store.scene_dataset` returned.
    """

    def __init__(self, scene: xr.Dataset) -> None:
        self.name = str(scene.attrs["scene_id"])
        self.units: str | None = str(scene.attrs["units"])
        self.height, self.width = scene.attrs["shape"]
        self.placed = store_georeference(scene)
        self._row, self._col = scene.row.values, scene.col.values
        self._take(scene)

    def leave_out(self, numbers: Sequence[int]) -> None:
        kept = np.delete(np.arange(self.bands), [number - 1 for number in numbers])
        self._take(self._scene.isel(band=kept))

    def _take(self, scene: xr.Dataset) -> None:
        self._scene, self.bands = scene, scene.sizes["band"]
        self.wavelength: tuple[float, ...] | None = tuple(scene.wavelength.values.tolist())
        across = 2 * (self.width // TILE_SIZE + 2)
        self._tile = functools.lru_cache(maxsize=across)(self._read)

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        stored = np.zeros((self.bands, last - first, self.width), self._scene.tiles.dtype)
        valid = np.zeros((last - first, self.width), bool)
        here = (self._row < last) & (self._row + TILE_SIZE > first)
        for number in np.flatnonzero(here).tolist():
            top, left = int(self._row[number]), int(self._col[number])
            low, high = max(top, first), min(top + TILE_SIZE, last)
            right = min(left + TILE_SIZE, self.width)
            inner = (slice(low - top, high - top), slice(0, right - left))
            place = (slice(low - first, high - first), slice(left, right))
            pixels, known = self._tile(number)
            stored[:, *place], valid[place] = pixels[:, *inner], known[inner]
        physical = _physical(stored, valid, float(self._scene.attrs["scale"]))
        if stored.dtype.kind != "f":
            for fill in INTEGER_FILL:
                physical[stored == fill] = np.nan
        return physical, valid

    def _read(self, number: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        tile = self._scene[["tiles", "valid"]].isel(tile=number).load()
        return tile.tiles.values, tile.valid.values


class PairSource:
    """Two dates of one place: the bands of the first, then those of the second.

    Raises:
        ValueError: They differ in size, bands, or grid.
    """

    def __init__(self, before: Source, after: Source) -> None:
        told_of: dict[str, Callable[[Source], Any]] = {
            "size": _size, "bands": _bands, "grid": _grid, "units": lambda one: one.units,
        }  # fmt: skip
        for what, told in told_of.items():
            a, b = told(before), told(after)
            if a != b:
                raise ValueError(
                    f"expected two dates of one grid and the same bands, got {what} {a} of "
                    f"{before.name} and {b} of {after.name}; bring the second to the first's"
                )
        self._both = before, after
        self.name, self.height, self.width = after.name, after.height, after.width
        self.bands, self.wavelength, self.placed = after.bands, after.wavelength, after.placed
        self.units = after.units

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the rows of both (2 C, n, W), and which pixels are valid in both."""
        images, valid = zip(*(one.rows(first, last) for one in self._both), strict=True)
        return np.concatenate(images), np.logical_and(*valid)


def _size(source: Source) -> tuple[int, int]:
    return source.height, source.width


def _bands(source: Source) -> tuple[int, ...]:
    return (source.bands, *(round(one) for one in source.wavelength or ()))


def _grid(source: Source) -> Any:
    placed = source.placed
    if "gcps" in placed:  # which are never equal themselves
        return [(one.row, one.col, one.x, one.y) for one in placed["gcps"]]
    return placed


def store_georeference(scene: xr.Dataset) -> dict[str, Any]:
    """Return the georeference of a scene of a store as keywords for `rasterio.open`.

    That of its grid, else its rational polynomials, else a ground point a tile; empty: none.
    """
    attrs = scene.attrs
    if attrs.get("crs") and attrs.get("transform"):
        grid = rasterio.transform.Affine(*attrs["transform"][:6])
        return {"crs": attrs["crs"], "transform": grid}
    if attrs.get("rpc"):
        return {"rpcs": rasterio.rpc.RPC(**attrs["rpc"])}
    points = [
        rasterio.control.GroundControlPoint(row=row, col=col, x=lon, y=lat)
        for row, col, lon, lat in zip(
            scene.row.values + TILE_SIZE / 2, scene.col.values + TILE_SIZE / 2,
            scene.lon.values, scene.lat.values, strict=True,
        )
        if math.isfinite(lon) and math.isfinite(lat)
    ]  # fmt: skip
    if len(points) >= MIN_GCPS:
        return {"gcps": points, "crs": rasterio.crs.CRS.from_epsg(4326)}
    return {}


def kind_of(placed: Mapping[str, Any]) -> str:
    """Return what a georeference is: `crs` (a grid), `rpc`, `gcp` (ground points) or `none`."""
    kinds = {"transform": "crs", "rpcs": "rpc", "gcps": "gcp"}
    return next((name for key, name in kinds.items() if key in placed), "none")


def _placed(file: Any) -> dict[str, Any]:
    if file.crs is not None and not file.transform.is_identity:
        return {"crs": file.crs, "transform": file.transform}
    if file.rpcs is not None:
        return {"rpcs": file.rpcs}
    points, crs = file.gcps
    if points:
        return {"gcps": points, "crs": crs}
    placed = {} if file.transform.is_identity else {"transform": file.transform}
    return placed | ({} if file.crs is None else {"crs": file.crs})


def _physical(
    stored_CnW: NDArray[Any], valid_nW: NDArray[np.bool_], scale: float
) -> NDArray[np.float32]:
    physical_CnW = stored_CnW.astype(np.float32)
    physical_CnW /= np.float32(scale)
    physical_CnW[:, ~valid_nW] = np.nan
    return physical_CnW
