"""Which scene is taken when, where and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from pipeline.synth.light import sun_position
from pipeline.synth.world import degrees

FAMILIES = ("hyperion-l1t", "gf5b", "hyperion-l1r", "hyperion-l1gst", "gf5")
"""What scene number i is: `FAMILIES[i % 5]`."""

# Scene centres east and north of the world's origin [km]: neighbours, overlaps and far ones.
PLACES = (
    (0.0, 0.0), (3.0, -2.0), (14.0, 6.0), (-18.0, 16.0), (16.0, -14.0),
    (-2.0, 4.0), (30.0, 10.0), (15.0, 8.0), (-6.0, -24.0), (28.0, -12.0),
)  # fmt: skip
# WRS-2 path and row of the origin; EO-1 kept the 16-day cycle of its path.
PATH_ROW = "200034"
FIRST_PASS = date(2003, 5, 6)
LAST_LETTERS = ("KF", "PF", "KZ", "PZ", "K0", "K1", "K2", "K3", "K4", "P0", "P1", "P2", "P3")
GF5_LAUNCH, GF5B_LAUNCH = date(2018, 5, 8), date(2021, 9, 7)


@dataclass(frozen=True)
class Plan:
    """One scene before it is made."""

    number: int
    family: str
    platform: str
    product: str
    """Name as the archive gives it: an entity id, or the name of an AHSI product."""
    acquired: datetime
    """Start, UTC."""
    orbit: int
    lon: float
    """Of the scene's centre [deg]."""
    lat: float
    """Of the scene's centre [deg]."""
    sun_elevation: float
    """At the centre [deg]."""
    sun_azimuth: float
    """At the centre, clockwise from north, 0..360 [deg]."""
    look: float
    """Angle off nadir, + to the east [deg]."""
    seed: int
    """Of the landscape and, with `number`, of all that is random in the scene."""

    @property
    def scene_id(self) -> str:
        """What the scene is called in a dataset: no dots, and the level with an entity id."""
        level = {"hyperion-l1t": "_1T", "hyperion-l1r": "_1R", "hyperion-l1gst": "_1GST"}
        return self.product.replace(".", "p") + level.get(self.family, "")


def plan_scene(number: int, seed: int) -> Plan:
    """Plan scene `number` (from 0) of the landscape `seed`."""
    family = FAMILIES[number % 5]
    lon, lat = _place(number)
    rng = scene_rng(seed, number, "plan")
    day, lap = _day(family, number)
    # Solar time of the crossing: 13:30 for GF-5 (2018), about 10:15 to 10:30 for the others.
    solar_hour = {"gf5": 13.5, "gf5b": 10.5}.get(family, 10.2) + rng.uniform(-0.15, 0.15)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    acquired = midnight + timedelta(seconds=round((solar_hour - lon / 15) * 3600))
    platform = {"gf5": "GF5", "gf5b": "GF5B"}.get(family, "EO1")
    orbit = _orbit(platform, day)
    elevation, azimuth = sun_position(acquired, lon, lat)
    return Plan(
        number, family, platform, _product(platform, number, day, lap=lap, place=(lon, lat)),
        acquired, orbit, lon, lat, round(elevation, 6), round(azimuth, 6),
        round(float(rng.uniform(-4, 4)), 4), seed,
    )  # fmt: skip


def scene_rng(seed: int, number: int, purpose: str) -> np.random.Generator:
    """Return the generator of one scene for one purpose; independent of all others."""
    return np.random.default_rng([seed, number, int.from_bytes(purpose.encode(), "little")])


def _place(number: int) -> tuple[float, float]:
    cycle, index = divmod(number, len(PLACES))
    east, north = PLACES[index]
    # Later rounds over the places are moved, and stay within 60 km and so within the path.
    shift = (cycle * 13 + 30) % 60 - 30, (cycle * 29 + 30) % 60 - 30
    return degrees(east + shift[0], north + shift[1])


def _day(family: str, number: int) -> tuple[date, int]:
    """Return a date between April and September, and how often all such dates were used up."""
    first, repeat, cycles = {
        "gf5": (GF5_LAUNCH + timedelta(days=51), 51, 12),
        "gf5b": (GF5B_LAUNCH + timedelta(days=51), 51, 25),
    }.get(family, (FIRST_PASS, 16, 300))
    days = [first + timedelta(days=repeat * k) for k in range(cycles)]
    days = [day for day in days if 4 <= day.month <= 9]
    count = _count_before(family, number)
    # A step that has no factor in common with the number of days visits each once.
    return days[(count * 7) % len(days)], count // len(days)


def _count_before(family: str, number: int) -> int:
    cycle, index = divmod(number, 5)
    return cycle if family.startswith("gf5") else cycle * 3 + {0: 0, 2: 1, 3: 2}[index]


def _orbit(platform: str, day: date) -> int:
    if platform == "EO1":
        return 0
    launch = GF5_LAUNCH if platform == "GF5" else GF5B_LAUNCH
    return round((day - launch).days * 14.57)


def _product(platform: str, number: int, day: date, *, lap: int, place: tuple[float, float]) -> str:
    if platform == "EO1":
        # The last two characters only keep ids apart.
        return f"EO1H{PATH_ROW}{day:%Y%j}110{LAST_LETTERS[lap % len(LAST_LETTERS)]}"
    lon, lat = place
    digits = 2 if platform == "GF5" else 1
    east, north = "EW"[lon < 0], "NS"[lat < 0]
    where = f"{east}{abs(lon):.{digits}f}_{north}{abs(lat):.{digits}f}"
    launch, rate = (GF5_LAUNCH, 141) if platform == "GF5" else (GF5B_LAUNCH, 527)
    product = (day - launch).days * rate + number
    return f"{platform}_AHSI_{where}_{day:%Y%m%d}_{_orbit(platform, day):06d}_L1{product:010d}"
