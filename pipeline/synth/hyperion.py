"""EO-1 Hyperion map products: L1T as a ZIP, L1GST as a tgz; 242 GeoTIFFs and an MTL text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import xy

from pipeline.synth.archive import write_tgz, write_zip
from pipeline.synth.geometry import Grid, map_grid
from pipeline.synth.plan import Plan, scene_rng
from pipeline.synth.sensor import Quality, expose, hyperion_counts
from pipeline.synth.truth import Truth, ground_and_path, make_truth
from pipeline.synth.world import World


@dataclass(frozen=True)
class Frame:
    """How the sensor's frame lies in the map."""

    shape: tuple[int, int] = (384, 320)
    """Rows and columns of the map grid."""
    footprint: tuple[int, int] = (344, 256)
    """Lines and samples of the frame."""
    tilt: float = 10.0
    """Of the frame, clockwise [deg]."""


FULL_SIZE = Frame((3400, 1100), (3300, 256), 12.0)
"""As a whole scene is delivered: 1.8 GB of DN, most of them border."""

QUALITY = Quality(noise=(0.006, 0.012), stripes=(0.006, 0.010), blue_stripes=0.02)


def write_map_product(
    out: Path, plan: Plan, world: World, frame: Frame = Frame()
) -> tuple[Path, Truth]:
    """Write one L1T or L1GST archive, as `plan.family` says, and return its path and its truth."""
    grid = map_grid(plan, frame.shape, frame.footprint, frame.tilt)
    truth = make_truth(plan, world, grid, "hyperion")
    if plan.family == "hyperion-l1t":
        path = out / f"{plan.product}_1T.ZIP"
        write_zip(path, _members(truth, "L1T", f"{plan.product}/"), created(plan))
    else:
        path = out / f"{plan.product}_1GST.tgz"
        write_tgz(path, _members(truth, "L1GST", ""), created(plan))
    return path, truth


def created(plan: Plan) -> datetime:
    """Return when the product was made: the day after."""
    return plan.acquired + timedelta(days=1, hours=3)


def signed_azimuth(azimuth: float) -> float:
    """Return an azimuth of 0..360 as -180..180, as Hyperion's metadata count it [deg]."""
    return azimuth - 360 if azimuth > 180 else azimuth


def _members(truth: Truth, level: str, folder: str) -> Iterator[tuple[str, bytes]]:
    plan, grid, bands = truth.plan, truth.grid, truth.bands
    rng = scene_rng(plan.seed, plan.number, "expose")
    before, after = _geotiff_parts(grid)
    for index, radiance in enumerate(
        expose(ground_and_path(truth), (bands, truth.sight), QUALITY, grid, rng)
    ):
        counts = hyperion_counts(radiance, bands.gain[index], live=bool(bands.live[index]))
        name = f"{folder}{plan.product}_B{index + 1:03d}_{level}.TIF"
        yield name, before + np.where(grid.valid, counts, 0).astype("<i2").tobytes() + after
    yield f"{folder}{plan.product}_MTL_{level}.TXT", _mtl(plan, grid, level).encode("ascii")


def _geotiff_parts(grid: Grid) -> tuple[bytes, bytes]:
    """Return what comes before and after the pixels in each band's file.

    GDAL writes blocks of zeros after all others; ones keep the rows in their order, as delivered.
    """
    ones = np.ones(grid.valid.shape, "<i2")
    height, width = ones.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype="int16",
            crs=grid.crs,
            transform=grid.transform,
        ) as file:
            file.write(ones, 1)
        before, pixels, after = memory.read().partition(ones.tobytes())
    if not pixels:
        raise RuntimeError("expected the rows of a GeoTIFF in their order, got them apart")
    return before, after


def _mtl(plan: Plan, grid: Grid, level: str) -> str:
    """Return the metadata in ODL. Corners are the centres of the corner pixels, fill included."""
    groups = {
        "METADATA_FILE_INFO": [
            f"PRODUCT_CREATION_TIME = {created(plan):%Y-%m-%dT%H:%M:%SZ}",
            'STATION_ID = "SGS"',
        ],
        "PRODUCT_METADATA": _product_metadata(plan, grid, level),
        "RADIANCE_SCALING": ["SCALING_FACTOR_VNIR = 40", "SCALING_FACTOR_SWIR = 80"],
        "PRODUCT_PARAMETERS": [
            f"SENSOR_LOOK_ANGLE = {plan.look:.4f}",
            f"SUN_AZIMUTH = {signed_azimuth(plan.sun_azimuth):.6f}",
            f"SUN_ELEVATION = {plan.sun_elevation:.6f}",
            'RESAMPLING_OPTION = "CC"',
        ],
        "PROJECTION_PARAMETERS": [
            'REFERENCE_DATUM = "WGS84"',
            'REFERENCE_ELLIPSOID = "WGS84"',
            "GRID_CELL_SIZE = 30.000000",
            'MAP_PROJECTION = "UTM"',
        ],
        "UTM_PARAMETERS": [f"ZONE_NUMBER = {int((plan.lon + 180) // 6) + 1}"],
    }
    lines = ["GROUP = L1_METADATA_FILE"]
    for name, entries in groups.items():
        lines += [f"  GROUP = {name}", *(f"    {entry}" for entry in entries)]
        lines.append(f"  END_GROUP = {name}")
    return "\n".join([*lines, "END_GROUP = L1_METADATA_FILE", "END", ""])


def _product_metadata(plan: Plan, grid: Grid, level: str) -> list[str]:
    height, width = grid.valid.shape
    start, end = plan.acquired, plan.acquired + timedelta(seconds=12)
    entries = [
        f'PRODUCT_TYPE = "{level}"',
        'SPACECRAFT_ID = "EO1"',
        'SENSOR_ID = "HYPERION"',
        f"ACQUISITION_DATE = {start:%Y-%m-%d}",
        f'START_TIME = "{start:%Y %j %H:%M:%S}"',
        f'END_TIME = "{end:%Y %j %H:%M:%S}"',
    ]
    for corner, row, column in (
        ("UL", 0, 0), ("UR", 0, width - 1), ("LL", height - 1, 0), ("LR", height - 1, width - 1),
    ):  # fmt: skip
        east, north = xy(grid.transform, row, column)
        entries += [
            f"PRODUCT_{corner}_CORNER_LAT = {grid.lat[row, column]:.6f}",
            f"PRODUCT_{corner}_CORNER_LON = {grid.lon[row, column]:.6f}",
            f"PRODUCT_{corner}_CORNER_MAPX = {east:.3f}",
            f"PRODUCT_{corner}_CORNER_MAPY = {north:.3f}",
        ]
    entries += [f"PRODUCT_LINES = {height}", f"PRODUCT_SAMPLES = {width}"]
    return entries + [
        f'BAND{band}_FILE_NAME = "{plan.product}_B{band:03d}_{level}.TIF"' for band in range(1, 243)
    ]
