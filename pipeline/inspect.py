"""What a raw product is: sensor, bands, sun, valid area, problems."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from pipeline.geolocation import lonlat
from pipeline.readers import open_scene
from pipeline.readers.scene import EARTH_RADIUS_KM
from pipeline.sensors import band_list
from pipeline.steps.masks import mask


def inspect_scene(uri: str | Path) -> dict[str, Any]:
    """Return what a raw product is, as JSON-able data; reads all its pixels once, chunk by chunk.

    Unknown numbers are None. `valid_area`: share of pixels [1], area [km2] on a sphere, and the
    `bbox` [west, south, east, north] [deg] of the valid pixels. `problems`: in words.

    Raises:
        SceneError: It is no product that is known, or not a whole one.
    """
    scene = open_scene(uri)
    masked = mask(scene)
    # Per row and column only, so that memory does not grow with the bands times the length.
    return facts(scene, *compute(masked.valid.data, masked.dead.mean("y").data))


def facts(scene: xr.Dataset, valid: NDArray[np.bool_], dead: NDArray[np.float64]) -> dict[str, Any]:
    """Return what `inspect_scene` does, of a scene whose pixels were looked at already.

    Args:
        scene: As `open_scene` returns it; no pixel is read.
        valid: Pixels that hold a measurement (y, x).
        dead: Share of dead samples in each column (band, x) [1].
    """
    attrs = scene.attrs
    return {
        **{key: attrs[key] for key in ("sensor", "platform", "scene_id", "level", "acquired")},
        "bands": scene.sizes["band"],
        "shape": [scene.sizes["y"], scene.sizes["x"]],
        "dtype": str(scene.dn.dtype),
        **{key: _known(attrs[key]) for key in ("sun_elevation", "sun_azimuth", "view_zenith")},
        "nodata": attrs["nodata"],
        "crs": attrs.get("crs"),
        "geometry": _geometry(attrs),
        "wavelength": [round(float(edge(scene.wavelength)), 3) for edge in (np.min, np.max)],
        "valid_area": _valid_area(scene, valid),
        "problems": _problems(scene, valid, dead),
        "sources": attrs["sources"],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _geometry(attrs: dict[str, Any]) -> str:
    names = {"crs": "map", "rpc": "sensor, with RPC", "corners": "sensor, with corners"}
    return next((words for key, words in names.items() if attrs.get(key)), "sensor")


def _valid_area(scene: xr.Dataset, valid: NDArray[np.bool_]) -> dict[str, Any]:
    rows = np.flatnonzero(valid.any(axis=1))
    area = {"fraction": float(valid.mean()), "km2": None, "bbox": None}
    if rows.size == 0:
        return area
    # Outer corners of the first and last valid pixel of each row.
    first = valid[rows].argmax(axis=1)
    last = valid.shape[1] - valid[rows, ::-1].argmax(axis=1)
    row = np.concatenate([rows, rows, rows + 1, rows + 1])
    lon, lat = lonlat(scene.attrs, valid.shape, row, np.concatenate([first, last, first, last]))
    if not np.isfinite(lon + lat).all():
        return area
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180
    box = [lon.min(), lat.min(), lon.max(), lat.max()]
    km2 = int(valid.sum()) * _pixel_km2(scene, valid.shape)
    return {**area, "km2": round(km2, 3), "bbox": [round(float(edge), 6) for edge in box]}


def _pixel_km2(scene: xr.Dataset, shape: tuple[int, int]) -> float:
    """Return the mean area of a pixel: the image's outline on an equal-area cylinder."""
    y, x = shape
    lon, lat = lonlat(scene.attrs, shape, [0, 0, y, y], [0, x, x, 0])
    lon = np.radians(lon[0] + (lon - lon[0] + 180) % 360 - 180)
    height = np.sin(np.radians(lat))
    area = 0.5 * np.sum(lon * np.roll(height, -1) - np.roll(lon, -1) * height)
    return float(abs(area)) * EARTH_RADIUS_KM**2 / (y * x)


def _problems(scene: xr.Dataset, valid: NDArray[np.bool_], dead: NDArray[np.float64]) -> list[str]:
    attrs = scene.attrs
    band = scene.band.values
    calibrated = set(band_list(attrs["sensor"], "calibrated").bands)
    uncalibrated = [number for number in band.tolist() if number not in calibrated]
    no_gain = band[~(scene.gain.values > 0)].tolist()
    columns = int((dead > 0.99).sum())
    found = [
        (no_gain, f"gains <= 0 in bands {ranges(no_gain)}"),
        (uncalibrated, f"bands not calibrated or flagged: {ranges(uncalibrated)}"),
        (columns, f"{columns} dead detectors (a column of a band), "
                  f"in bands {ranges(band[(dead > 0.99).any(axis=1)].tolist())}"),
        (not math.isfinite(attrs["sun_elevation"]), "sun angles missing: no reflectance"),
        (not attrs.get("crs") and not attrs.get("rpc") and not attrs.get("corners"),
         "place unknown: no tile can be kept"),
        (attrs.get("scale_factor", 1) != 1, "ScaleFactor is not 1, its meaning not documented"),
        (attrs.get("time_zone") == "undecided",
         "time zone of StartTime not documented nor told by SolarZenith, taken as UTC"),
        (attrs.get("swir_shift_residual", 0) > 1,
         f"SWIR lies up to {attrs.get('swir_shift_residual')} pixels off VNIR by the RPC"),
        (not valid.any(), "no valid pixel"),
    ]  # fmt: skip
    return [words for there, words in found if there] + list(attrs.get("notes", []))


def ranges(numbers: list[int]) -> str:
    """Return numbers in ascending order as text such as `1-7, 58`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
