"""EO-1 Hyperion L1R as a tgz: HDF4 image and quality file, corner text, ENVI header.

Sensor geometry: column c of a band is always the same detector, with its own wavelength (smile),
its own gain (stripes), and here and there none at all (dead).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from pyhdf.SD import SD, SDC

from pipeline.synth.archive import write_tgz
from pipeline.synth.arrays import Floats, Ints
from pipeline.synth.geometry import Grid, frame_grid
from pipeline.synth.hyperion import QUALITY, Frame, created, signed_azimuth
from pipeline.synth.light import Air, Bands, signal
from pipeline.synth.plan import Plan, scene_rng
from pipeline.synth.sensor import expose, hyperion_counts
from pipeline.synth.truth import Truth, ground_and_path, make_truth
from pipeline.synth.world import World

SHAPE = (384, 256)
"""Lines and samples."""
LOST_LINES = 2
FILL = -32767
PATH_LENGTH = 200
SMILE = (1.3, 0.3)
"""Shift of wavelength at the edge of the swath, VNIR and SWIR [nm]."""
SATURATED, DEAD, FLAT, FILLED = 1, 2, 3, 4
"""Codes of the flag mask."""
DEAD_DETECTORS, SATURATED_PIXELS, FILLED_PIXELS = 10, 12, 20


def write_l1r(out: Path, plan: Plan, world: World) -> tuple[Path, Truth]:
    """Write one L1R archive and return its path and its truth."""
    grid = frame_grid(plan, SHAPE, Frame.tilt, lost_lines=LOST_LINES)
    rng = scene_rng(plan.seed, plan.number, "broken")
    truth = make_truth(plan, world, grid, "hyperion")
    *dead, flat = _bad_detectors(truth.bands, rng)
    truth = replace(truth, dead=tuple(dead))
    image = _image(truth)
    flags = _spoil(image, truth, flat, rng)
    path = out / f"{plan.product}_1R.tgz"
    write_tgz(path, _members(truth, image, flags), created(plan))
    return path, truth


def column_wavelengths(bands: Bands) -> Floats:
    """Return the centre of each detector (band, sample) [nm]: a parabola across the swath."""
    across = np.linspace(-1, 1, SHAPE[1])
    edge = np.where(bands.swir, SMILE[1], SMILE[0])
    # The middle detectors have the nominal wavelength.
    return bands.wavelength[:, None] + edge[:, None] * across**2


def _image(truth: Truth) -> Ints:
    """Return DN (line, band, sample), int16, before anything is broken."""
    bands, grid = truth.bands, truth.grid
    # The shift is small against a band's width, so a slope describes what it does.
    slope = _slope(truth.air, bands)
    across = np.linspace(-1, 1, SHAPE[1], dtype=np.float32) ** 2
    ground = ground_and_path(truth)
    shifted = np.vstack([truth.sight.radiance, slope * np.where(bands.swir, SMILE[1], SMILE[0])])
    sight = replace(truth.sight, radiance=shifted)
    weights = np.concatenate([ground, ground * across])
    rng = scene_rng(truth.plan.seed, truth.plan.number, "expose")
    image = np.empty((SHAPE[0], len(bands.number), SHAPE[1]), np.int16)
    for index, radiance in enumerate(expose(weights, (bands, sight), QUALITY, grid, rng)):
        live = bool(bands.live[index])
        image[:, index] = hyperion_counts(radiance, bands.gain[index], live=live)
    return image


def _slope(air: Air, bands: Bands) -> Floats:
    """Return what 1 nm more does to the radiance (endmember + 1, band)."""
    above = signal(air, bands.wavelength + 0.5, bands.fwhm).radiance
    return np.asarray(above - signal(air, bands.wavelength - 0.5, bands.fwhm).radiance)


def _bad_detectors(bands: Bands, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return band number and column of the dead detectors and, last, of one that is stuck."""
    live = bands.number[bands.live]
    numbers = rng.choice(live, DEAD_DETECTORS + 1, replace=False)
    columns = rng.choice(np.arange(4, SHAPE[1] - 4), DEAD_DETECTORS + 1, replace=False)
    return list(zip(numbers.tolist(), columns.tolist(), strict=True))


def _spoil(image: Ints, truth: Truth, flat: tuple[int, int], rng: np.random.Generator) -> Ints:
    """Put dead and flat detectors, saturated and filled pixels into `image`; return the flags."""
    flags = np.zeros(image.shape, np.uint8)
    live = np.flatnonzero(truth.bands.live)
    for count, value, code in (
        (SATURATED_PIXELS, 32767, SATURATED), (FILLED_PIXELS, FILL, FILLED),
    ):  # fmt: skip
        for _ in range(count):
            line, sample = rng.integers(SHAPE[0] - LOST_LINES), rng.integers(SHAPE[1])
            start = rng.integers(len(live) - 6)
            hit = live[start : start + 6]
            image[line, hit, sample], flags[line, hit, sample] = value, code
    for number, column in truth.dead:
        image[:, number - 1, column], flags[:, number - 1, column] = 0, DEAD
    number, column = flat
    image[:, number - 1, column], flags[:, number - 1, column] = 1234, FLAT
    image[-LOST_LINES:, live], flags[-LOST_LINES:, live] = FILL, FILLED
    return flags


def _members(truth: Truth, image: Ints, flags: Ints) -> Iterator[tuple[str, bytes]]:
    plan, name = truth.plan, f"{truth.plan.product}/{truth.plan.product}"
    yield f"{name}.L1R", _hdf4(lambda path: _write_image(path, plan, image))
    yield f"{name}.AUX", _hdf4(lambda path: _write_auxiliary(path, truth.bands, flags))
    yield f"{name}.MET", _met(plan, truth.grid).encode("ascii")
    yield f"{name}.hdr", _envi_header(truth.bands).encode("ascii")


def _hdf4(write: Callable[[str], None]) -> bytes:
    """Return the bytes of an HDF4 file, which the library can only write to a disk."""
    with tempfile.TemporaryDirectory() as folder:
        # The library stores the file's own path; one of fixed length can be taken out again.
        path = f"{folder}/{'x' * (PATH_LENGTH - len(folder) - 1)}"
        write(path)
        return Path(path).read_bytes().replace(path.encode(), b"product".ljust(PATH_LENGTH))


def _write_image(path: str, plan: Plan, image: Ints) -> None:
    file = SD(path, SDC.WRITE | SDC.CREATE | SDC.TRUNC)
    file.attr("L1 File Generated By").set(SDC.CHAR8, "HYP version 3.2")
    file.attr("Interleave Format").set(SDC.CHAR8, "BIL")
    file.attr("File Byte Order").set(SDC.CHAR8, "BIG_ENDIAN")
    file.attr("ImageStartTime").set(SDC.CHAR8, f"{plan.acquired:%Y%j%H%M%S.%f}")
    data = file.create(f"{plan.product}.L1R", SDC.INT16, image.shape)
    data.attr("Number of Along Track Pixels").set(SDC.INT32, image.shape[0])
    data.attr("Number of Bands").set(SDC.INT32, image.shape[1])
    data.attr("Number of Cross Track Pixels").set(SDC.INT32, image.shape[2])
    data[:] = image
    data.endaccess()
    file.end()


def _write_auxiliary(path: str, bands: Bands, flags: Ints) -> None:
    shape = (len(bands.number), SHAPE[1])
    tables = {
        "Spectral Center Wavelengths": column_wavelengths(bands),
        "Spectral Bandwidths": np.broadcast_to(bands.fwhm[:, None], shape),
        "Gain Coefficients": np.broadcast_to(bands.live[:, None].astype(float), shape),
    }
    file = SD(path, SDC.WRITE | SDC.CREATE | SDC.TRUNC)
    for name, table in tables.items():
        data = file.create(name, SDC.FLOAT32, shape)
        if name.startswith("Spectral"):
            data.attr("Data Units").set(SDC.CHAR8, "nanometers")
        data[:] = np.ascontiguousarray(table, np.float32)
        data.endaccess()
    data = file.create("Flag Mask", SDC.UINT8, flags.shape)
    data[:] = flags
    data.endaccess()
    file.end()


def _met(plan: Plan, grid: Grid) -> str:
    end = plan.acquired + timedelta(seconds=12)
    lines = [
        'SPACECRAFT_ID = "EO1"',
        'SENSOR_ID = "HYPERION"',
        f"ACQUISITION_DATE = {plan.acquired:%Y-%m-%d}",
        f'START_TIME = "{plan.acquired:%Y %j %H:%M:%S}"',
        f'END_TIME = "{end:%Y %j %H:%M:%S}"',
    ]
    for corner, row, column in (("UL", 0, 0), ("UR", 0, -1), ("LL", -1, 0), ("LR", -1, -1)):
        lines.append(f"PRODUCT_{corner}_CORNER_LAT = {grid.lat[row, column]:.6f}")
        lines.append(f"PRODUCT_{corner}_CORNER_LON = {grid.lon[row, column]:.6f}")
    lines += [
        f"SUN_ELEVATION = {plan.sun_elevation:.6f}",
        f"SUN_AZIMUTH = {signed_azimuth(plan.sun_azimuth):.6f}",
        f"SENSOR_LOOK_ANGLE = {plan.look:.4f}",
    ]
    return "\n".join([*lines, ""])


def _envi_header(bands: Bands) -> str:
    def listed(values: Floats) -> str:
        return "{\n " + ",\n ".join(f"{value:.4f}" for value in values) + "}"

    return "\n".join([
        "ENVI",
        f"samples = {SHAPE[1]}",
        f"lines = {SHAPE[0]}",
        f"bands = {len(bands.number)}",
        "header offset = 0",
        "file type = HDF Scientific Data",
        "data type = 2",
        "interleave = bil",
        "byte order = 1",
        "wavelength units = Nanometers",
        f"wavelength = {listed(bands.wavelength)}",
        f"fwhm = {listed(bands.fwhm)}",
        "",
    ])  # fmt: skip
