"""Facts about the sensors: one module and one table a sensor, and the sun they all look by."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.sensors.ahsi import AHSI
from pipeline.sensors.enmap import ENMAP
from pipeline.sensors.hyperion import HYPERION
from pipeline.sensors.sensor import TABLES, BandList, Sensor, read_rows
from pipeline.sensors.zy1_ahsi import ZY1_AHSI

__all__ = ["SENSORS", "TABLES", "BandList", "Sensor", "band_list", "solar_irradiance"]

SENSORS: dict[str, Sensor] = {
    "hyperion": HYPERION,
    "ahsi": AHSI,
    "zy1_ahsi": ZY1_AHSI,
    "enmap": ENMAP,
}
"""By the name in a scene's attrs `sensor`."""


def band_list(sensor: str, name: str) -> BandList:
    """Return the list `name` of `sensor`.

    Raises:
        KeyError: No such sensor or list; names those there are.
    """
    if sensor not in SENSORS:
        raise KeyError(f"there are the sensors {sorted(SENSORS)}, got {sensor!r}")
    lists = SENSORS[sensor].lists
    if name not in lists:
        raise KeyError(f"{sensor} has the band lists {sorted(lists)}, got {name!r}")
    return lists[name]


@cache
def solar_irradiance() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return wavelength in air [nm] and irradiance at 1 au [W m-2 um-1], every nm.

    Source: TSIS-1 HSRS v2, Coddington et al. 2023, doi:10.1029/2022EA002637.
    """
    rows = read_rows("solar_tsis1_hsrs_v2_1nm_air.csv")
    table = np.array([[float(value) for value in row.values()] for row in rows])
    return table[:, 0], table[:, 1]
