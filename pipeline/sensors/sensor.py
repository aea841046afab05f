"""What is known of a sensor before any product of it is opened, and its table's reader."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLES = Path(__file__).parents[1] / "tables"

type Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BandList:
    """A named selection of bands, in the product's own 1-based numbers."""

    sensor: str
    name: str
    version: int
    """Grows when the bands change; data made with a list record name and version."""
    bands: tuple[int, ...]
    sha256: str
    """Of the bands as text, `8,9,10`: a test compares, so that no list changes unnoticed."""
    source: str
    doubt: str = ""
    """Why the list may not be what its name says; empty where its source was read."""


@dataclass(frozen=True, eq=False)
class Sensor:
    """One sensor as data; all arrays (band)."""

    name: str
    """As scenes have it in attrs `sensor`."""
    title: str
    band: NDArray[np.int32]
    """The product's numbers, 1-based."""
    detector: tuple[str, ...]
    """Empty where each product says."""
    wavelength: Floats
    """[nm]; a product's own, where it has some, are the better ones; NaN where only it has."""
    fwhm: Floats
    """[nm]."""
    gain: Floats
    """radiance = gain * dn [W m-2 sr-1 um-1]; NaN where each product has its own."""
    irradiance: Mapping[str, Floats]
    """Solar irradiance at 1 au [W m-2 um-1] by the solar spectrum's name; NaN where unknown."""
    lists: Mapping[str, BandList] = field(default_factory=dict)
    ceiling: int | None = None
    """The DN that a saturated sample has at least, where a product has no flags; None: unknown."""

    @property
    def counts(self) -> dict[str, int]:
        """Bands by detector, in the products' order."""
        return {name: self.detector.count(name) for name in dict.fromkeys(self.detector)}

    @cached_property
    def sha256(self) -> str:
        """Of the table and the ceiling: what a scene's numbers follow from, beside the product."""
        columns = (self.band, self.wavelength, self.fwhm, self.gain, *self.irradiance.values())
        numbers = [np.asarray(column).tolist() for column in columns]
        text = repr((self.name, self.detector, numbers, list(self.irradiance), self.ceiling))
        return hashlib.sha256(text.encode()).hexdigest()


def read_sensor(name: str, title: str, *lists: BandList, ceiling: int | None = None) -> Sensor:
    """Return the sensor of `tables/<name>.csv` with its band lists, saturated from `ceiling` on.

    Columns: band, detector, wavelength_nm, fwhm_nm, gain (empty: the product's), `esun_*`.

    Raises:
        ValueError: A list has a band that the table has not, or another sensor's name.
    """
    rows = read_rows(f"{name}.csv")
    solar = [column for column in rows[0] if column.startswith("esun_")]
    sensor = Sensor(
        name, title,
        band=np.array([int(row["band"]) for row in rows], "int32"),
        detector=tuple(row["detector"] for row in rows),
        wavelength=_column(rows, "wavelength_nm"), fwhm=_column(rows, "fwhm_nm"),
        gain=_column(rows, "gain"),
        irradiance={column.removeprefix("esun_"): _positive(rows, column) for column in solar},
        lists={each.name: each for each in lists}, ceiling=ceiling,
    )  # fmt: skip
    for each in lists:
        if each.sensor != name or not set(each.bands) <= set(sensor.band.tolist()):
            raise ValueError(f"{name}: band list {each.sensor}/{each.name} has other bands")
    return sensor


def parse_bands(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `8-57,77`, in the order written."""
    bands: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        bands += range(int(first), int(last or first) + 1)
    return tuple(bands)


def digest(bands: tuple[int, ...]) -> str:
    """Return the sha256 of bands as text, `8,9,10`."""
    return hashlib.sha256(",".join(map(str, bands)).encode()).hexdigest()


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table in `tables/`; lines that begin with # are its header comment."""
    lines = (TABLES / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _positive(rows: list[dict[str, Any]], name: str) -> Floats:
    """Return a column, NaN for the zeros that tables have for "none"."""
    values = _column(rows, name)
    return np.where(values > 0, values, np.nan)


def _column(rows: list[dict[str, Any]], name: str) -> Floats:
    return np.array([float(row[name] or "nan") for row in rows])
