"""Where the sun stands."""

from datetime import UTC, datetime

import numpy as np

_NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


def sun_zenith(time: datetime, lon: float, lat: float) -> float:
    """Return the angle between the sun and the vertical [deg], without refraction.

    Args:
        time: With its time zone.
        lon: [deg], east positive.
        lat: [deg].

    Source: the Astronomical Almanac's low-precision formulas as in Michalsky 1988,
    doi:10.1016/0038-092X(88)90045-X; within 0.01 deg from 1950 to 2050.
    """
    days = (time - _NOON).total_seconds() / 86400
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = 280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    longitude, obliquity = np.radians(ecliptic), np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    # Greenwich's sidereal time: 18.697375 h at noon of 2000-01-01, 24.0657098 h a day.
    sidereal = np.radians(15 * (18.697375 + 24.0657098242 * days) + lon)
    north = np.radians(lat)
    height = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(
        sidereal - ascension
    )
    return float(np.degrees(np.arccos(np.clip(height, -1, 1))))
