"""The text files of an AHSI product: calibration, response and XML, as checked numbers."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.readers import metadata
from pipeline.readers.members import FETCH_AGAIN, xml_root
from pipeline.readers.product import Member, Product
from pipeline.sun import sun_zenith
from storage.schema import SceneError

_FIT = 1.0
"""How near [deg] a zone's sun must be to SolarZenith, which is one number for the whole scene."""
_YEARS = range(2018, 2100)
"""From GF-5's launch on."""


def sidecar_pattern(detector: str, kind: str) -> str:
    """Return what a calibration text file's name matches; satellites order its words otherwise."""
    return rf".*({kind}.*{detector}|{detector}.*{kind}).*"


def calibration(product: Product, member: Member, rows: int) -> NDArray[np.float64]:
    """Return gain and offset (band, 2); without a second column the offset is 0."""
    table = _table(product, member, rows)
    table[:, 1] = np.nan_to_num(table[:, 1])
    return table


def response(product: Product, member: Member, rows: int) -> NDArray[np.float64]:
    """Return centre and FWHM (band, 2) [nm]; without an FWHM column the channel spacing."""
    table = _table(product, member, rows)
    if np.isnan(table[:, 1]).all():
        table[:, 1] = np.abs(np.gradient(table[:, 0]))
    centre, fwhm = table.T
    if not ((centre > 300) & (centre < 2700) & (fwhm > 0) & (fwhm < 100)).all():
        raise SceneError(
            product.where(member), expected="wavelengths in 300..2700 nm, FWHM in 0..100 nm",
            got=f"{centre.min():g}..{centre.max():g}, {fwhm.min():g}..{fwhm.max():g}",
            todo="check that the file is in nm",
        )  # fmt: skip
    return table


def xml_values(product: Product, member: Member) -> dict[str, str]:
    """Return the text of every element by its name without namespace; of several the first."""
    values: dict[str, str] = {}
    for element in xml_root(product, member).iter():
        values.setdefault(element.tag.rpartition("}")[2], (element.text or "").strip())
    return values


def check_kind(values: Mapping[str, str], where: str) -> None:
    """Refuse what the XML says is no AHSI, or of another level than 1 (ZY1 calls it `Level`)."""
    sensor = values.get("SensorID") or "AHSI"
    level = values.get("ProductLevel") or values.get("Level") or "1"
    digit = re.search(r"\d", level)
    if "AHSI" not in sensor.upper() or (digit and digit[0] != "1"):
        raise SceneError(
            where, expected="SensorID AHSI and level 1", got=f"{sensor}, level {level}",
            todo="only level 1 products of AHSI can be read",
        )  # fmt: skip


def sun_and_time(
    values: Mapping[str, str], place: tuple[float, float], where: str
) -> dict[str, str | float]:
    """Return angles of sun and view, NaN for those it has not, and the time.

    `time_zone` says how StartTime, whose zone is not documented, was read: the one of UTC and
    UTC+8 in which the sun stands within 1 deg of SolarZenith at `place`; if that is neither or
    both, it is "undecided" and taken as UTC; "stated" if StartTime has a zone.

    Args:
        values: The XML's.
        place: Longitude and latitude of the scene's centre [deg].
        where: The XML's name, for messages.
    """
    zenith = metadata.angle(values, "SolarZenith", where, low=0, high=180)
    azimuth = metadata.angle(values, "SolarAzimuth", where, low=-360, high=360)
    time, zone = _time(values, place, zenith, where)
    return {
        "acquired": time.isoformat().replace("+00:00", "Z"),
        "time_zone": zone,
        "sun_elevation": 90 - zenith,
        "sun_azimuth": azimuth % 360,
        "view_zenith": metadata.angle(values, "SatelliteZenith", where, low=-90, high=90),
    }


def _time(
    values: Mapping[str, str], place: tuple[float, float], zenith: float, where: str
) -> tuple[datetime, str]:
    stated = _start(metadata.text(values, "StartTime", where), where)
    if stated.tzinfo is not None:
        return stated.astimezone(UTC), "stated"
    times = {
        "UTC": stated.replace(tzinfo=UTC),
        "UTC+8 assumed from SolarZenith": stated.replace(tzinfo=UTC) - timedelta(hours=8),
    }
    fit = [zone for zone, time in times.items() if abs(sun_zenith(time, *place) - zenith) < _FIT]
    return (times[fit[0]], fit[0]) if len(fit) == 1 else (times["UTC"], "undecided")


def _start(text: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.year not in _YEARS:
        raise SceneError(
            where, expected="StartTime like 2023-10-31 11:02:11.25, from 2018 on", got=repr(text),
            todo="compare the file with an intact product's; fetch the product again",
        )  # fmt: skip
    return time


def _table(product: Product, member: Member, rows: int) -> NDArray[np.float64]:
    """Return a text table (band, 2); a missing second column is NaN."""
    where = product.where(member)
    lines = product.read(member).decode("utf-8-sig", errors="replace").splitlines()
    values = [[_number(word, where) for word in re.split(r"[,;\s]+", line.strip(" \t,;"))]
              for line in lines if line.strip(" \t,;\0")]  # fmt: skip
    widths = {len(row) for row in values}
    if len(values) != rows or widths not in ({1}, {2}):
        raise SceneError(
            where, expected=f"{rows} lines of one or two numbers",
            got=f"{len(values)} lines of {sorted(widths)}", todo=FETCH_AGAIN,
        )  # fmt: skip
    return np.array([(*row, math.nan)[:2] for row in values])


def _number(word: str, where: str) -> float:
    values: dict[str, Any] = {"each value": word}
    return metadata.number(values, "each value", where)
