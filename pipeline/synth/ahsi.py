"""GF-5B AHSI as a tar.gz, GF-5 AHSI as a folder: two rasters with RPC, XML and text tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from pipeline.synth.archive import write_folder, write_tgz
from pipeline.synth.geometry import frame_grid, frame_lonlat
from pipeline.synth.light import Bands
from pipeline.synth.plan import Plan, scene_rng
from pipeline.synth.sensor import Quality, ahsi_counts, expose
from pipeline.synth.truth import Truth, ground_and_path, make_truth
from pipeline.synth.world import KM_PER_DEGREE, World

SHAPE = (384, 320)
LOST_LINES = 2
"""Lines at the end that are filled with 0."""
TILT = {"GF5B": 12.0, "GF5": -12.0}
"""Of the frame on the ground [deg]: GF-5B images by day on its way south, GF-5 on its way north."""

QUALITY = Quality(noise=(0.003, 0.005), stripes=(0.004, 0.005), blue_stripes=0.006)


def write_ahsi(out: Path, plan: Plan, world: World) -> tuple[Path, Truth]:
    """Write one AHSI product, as `plan.platform` says, and return its path and its truth."""
    grid = frame_grid(plan, SHAPE, TILT[plan.platform], lost_lines=LOST_LINES)
    truth = make_truth(plan, world, grid, plan.platform.lower())
    if plan.platform == "GF5B":
        path = out / f"{plan.product}.tar.gz"
        write_tgz(path, _members(truth), plan.acquired + timedelta(days=2))
    else:
        path = out / plan.product
        write_folder(path, _members(truth))
    return path, truth


def _members(truth: Truth) -> Iterator[tuple[str, bytes]]:
    plan = truth.plan
    stem = f"{plan.product}/{plan.product}"
    rasters = _rasters(truth)
    suffix = "tif" if plan.platform == "GF5B" else "geotiff"
    for part, content in zip(("VN", "SW"), rasters, strict=True):
        yield f"{stem}_{part}.{suffix}", content
        yield f"{stem}_{part}.rpb", _rpb(plan).encode("ascii")
    yield f"{stem}.xml", _xml(plan).encode("utf-8")
    for swir, detector in enumerate(("VNIR", "SWIR")):
        for kind, table in _text_tables(plan.platform, truth.bands, bool(swir)).items():
            # The two words stand the other way round in products of GF-5.
            words = f"{kind}_{detector}" if plan.platform == "GF5B" else f"{detector}_{kind}"
            yield f"{plan.product}/{plan.platform}_AHSI_{words}.raw", table.encode("ascii")


def _rasters(truth: Truth) -> Iterator[bytes]:
    """Yield the VNIR and the SWIR raster: uint16, no CRS, no geotransform, 0 = no data."""
    plan, grid, bands = truth.plan, truth.grid, truth.bands
    rng = scene_rng(plan.seed, plan.number, "expose")
    exposures = enumerate(expose(ground_and_path(truth), (bands, truth.sight), QUALITY, grid, rng))
    for count in (150, 180):
        with MemoryFile() as memory, warnings.catch_warnings():
            # Sensor geometry is meant: the RPC lie beside the raster.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(
                driver="GTiff",
                height=SHAPE[0],
                width=SHAPE[1],
                count=count,
                dtype="uint16",
                interleave="band",
            ) as file:
                for band in range(1, count + 1):
                    index, radiance = next(exposures)
                    scale = float(bands.gain[index]), float(bands.offset[index])
                    counts = ahsi_counts(radiance, scale, live=bool(bands.live[index]))
                    file.write(np.where(grid.valid, counts, 0).astype(np.uint16), band)
            yield memory.read()


def _text_tables(platform: str, bands: Bands, swir: bool) -> dict[str, str]:
    """Return the two text tables of a detector: GF-5B comma separated, GF-5 by TAB, gain alone."""
    rows = np.flatnonzero(bands.swir == swir)
    if platform == "GF5B":
        response = [f"{bands.wavelength[i]:.4f},{bands.fwhm[i]:.3f}\n" for i in rows]
        radcal = [f"{bands.gain[i]:.6f},{bands.offset[i]:.6f}\n" for i in rows]
    else:
        response = [f"{bands.wavelength[i]:.6f}\t{bands.fwhm[i]:.6f}\n" for i in rows]
        radcal = [f"{bands.gain[i]:.6f}\n" for i in rows]
    return {"RadCal": "".join(radcal), "Spectralresponse": "".join(response)}


def _rpb(plan: Plan) -> str:
    """Return the rational polynomials. The ground is a plane here, so linear terms suffice."""
    tilt = np.deg2rad(TILT[plan.platform])
    lon_scale, lat_scale = 0.07, 0.07
    centre = (SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2
    # Pixels per normalised degree, to the east and to the north.
    east = lon_scale * KM_PER_DEGREE[0] * 1000 / 30
    north = lat_scale * KM_PER_DEGREE[1] * 1000 / 30
    coefficients = {
        "lineNumCoef": (0.0, -east * np.sin(tilt) / centre[0], -north * np.cos(tilt) / centre[0]),
        "lineDenCoef": (1.0,),
        "sampNumCoef": (0.0, east * np.cos(tilt) / centre[1], -north * np.sin(tilt) / centre[1]),
        "sampDenCoef": (1.0,),
    }
    numbers = {
        "errBias": 0.0, "errRand": 0.0,
        "lineOffset": centre[0], "sampOffset": centre[1],
        "latOffset": plan.lat, "longOffset": plan.lon, "heightOffset": 600.0,
        "lineScale": centre[0], "sampScale": centre[1],
        "latScale": lat_scale, "longScale": lon_scale, "heightScale": 500.0,
    }  # fmt: skip
    lines = [f'satId = "{plan.platform}";', 'bandId = "AHSI";', 'SpecId = "RPC00B";']
    lines.append("BEGIN_GROUP = IMAGE")
    lines += [f"\t{key} = {value:.10g};" for key, value in numbers.items()]
    for key, values in coefficients.items():
        full = [*values, *[0.0] * (20 - len(values))]
        body = ",\n".join(f"\t\t\t{value:.12e}" for value in full)
        lines.append(f"\t{key} = (\n{body});")
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;", ""])


def _xml(plan: Plan) -> str:
    end = plan.acquired + timedelta(seconds=2)
    fields: dict[str, object] = {
        "SatelliteID": plan.platform, "ReceiveStationID": "MYC", "SensorID": "AHSI",
        "ProduceTime": f"{plan.acquired + timedelta(days=2):%Y-%m-%d %H:%M:%S}",
        "ProductLevel": "LEVEL1", "ProductFormat": "GEOTIFF",
        "SceneID": int(plan.product[-8:]) , "ProductID": plan.product.rpartition("_")[2],
        "BandsCount": 330, "BandsID": "1-330", "OrbitID": plan.orbit,
        "RollSatelliteAngle": f"{plan.look:.4f}",
        "SolarAzimuth": f"{plan.sun_azimuth:.6f}",
        "SolarZenith": f"{90 - plan.sun_elevation:.6f}",
        "SatelliteAzimuth": f"{98.0 if plan.look > 0 else 278.0:.6f}",
        "SatelliteZenith": f"{abs(plan.look) * 1.11:.6f}",
        "StartTime": f"{plan.acquired:%Y-%m-%d %H:%M:%S}.000000",
        "EndTime": f"{end:%Y-%m-%d %H:%M:%S}.000000",
        "ImageGSD": 30, "LinesInPixels": SHAPE[0], "SamplesInPixels": SHAPE[1],
        "WidthInMeters": SHAPE[1] * 30, "HeightInMeters": SHAPE[0] * 30,
        "CloudPercent": 0, "EarthEllipsoid": "WGS_84", "ScaleFactor": 1,
        "CenterLatitude": f"{plan.lat:.6f}", "CenterLongitude": f"{plan.lon:.6f}",
    }  # fmt: skip
    last_line, last_sample = SHAPE[0] - 1, SHAPE[1] - 1
    corners = (
        ("TopLeft", 0, 0), ("TopRight", 0, last_sample),
        ("BottomRight", last_line, last_sample), ("BottomLeft", last_line, 0),
    )  # fmt: skip
    for name, line, sample in corners:
        lon, lat = frame_lonlat(plan, SHAPE, TILT[plan.platform], (float(line), float(sample)))
        fields |= {f"{name}Latitude": f"{lat:.6f}", f"{name}Longitude": f"{lon:.6f}"}
    body = "".join(f"  <{key}>{value}</{key}>\n" for key, value in fields.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<ProductMetaData>\n{body}</ProductMetaData>\n"
