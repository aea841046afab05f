"""Facts about the sensors, read from `pipeline/tables/`: bands, named band lists, sunlight."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLES = Path(__file__).parent / "tables"

HYPERION_BANDS = 242
AHSI_BANDS = {"VNIR": 150, "SWIR": 180}


@dataclass(frozen=True)
class BandList:
    """A named selection of bands, in the product's own 1-based numbers."""

    sensor: str
    name: str
    version: int
    bands: tuple[int, ...]
    source: str


def band_list(sensor: str, name: str) -> BandList:
    """Return the list `name` of `sensor`.

    Raises:
        KeyError: No such list; names those there are.
    """
    lists = _band_lists()
    if (sensor, name) not in lists:
        known = sorted(known for owner, known in lists if owner == sensor)
        raise KeyError(f"{sensor} has the band lists {known}, got {name!r}")
    return lists[sensor, name]


@cache
def hyperion_bands() -> dict[str, NDArray[np.float64]]:
    """Return the USGS band table: `wavelength`, `fwhm` [nm], each (242,), band 1 first."""
    rows = _rows("hyperion_bands.csv")
    columns = {"wavelength": "centre_nm", "fwhm": "fwhm_nm"}
    return {name: np.array([float(row[c]) for row in rows]) for name, c in columns.items()}


def hyperion_detectors() -> list[str]:
    """Return "VNIR" for bands 1-70 and "SWIR" for 71-242."""
    return [row["detector"] for row in _rows("hyperion_bands.csv")]


@cache
def solar_irradiance() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return wavelength in air [nm] and irradiance at 1 au [W m-2 um-1], every nm.

    Source: TSIS-1 HSRS v2, Coddington et al. 2023, doi:10.1029/2022EA002637.
    """
    rows = _rows("solar_tsis1_hsrs_v2_1nm_air.csv")
    table = np.array([[float(value) for value in row.values()] for row in rows])
    return table[:, 0], table[:, 1]


@cache
def _band_lists() -> dict[tuple[str, str], BandList]:
    lists = {}
    for row in _rows("band_lists.csv"):
        bands = parse_bands(row["bands"])
        if len(bands) != int(row["count"]):
            raise ValueError(f"band list {row['name']}: {row['count']} bands, got {len(bands)}")
        key = row["sensor"], row["name"]
        lists[key] = BandList(*key, int(row["version"]), bands, row["source"])
    return lists


def parse_bands(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `8-57,77`, in the order written."""
    bands: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        bands += range(int(first), int(last or first) + 1)
    return tuple(bands)


def _rows(name: str) -> list[dict[str, str]]:
    lines = (TABLES / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
