"""Metadata files as plain dicts of strings, and their values checked on the way out."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from storage.schema import SceneError

_KEY = re.compile(r"[A-Za-z]\w*")


def parse_odl(content: bytes) -> dict[str, str]:
    """Return the `KEY = value` lines of an MTL or MET file, groups flattened, quotes removed."""
    found: dict[str, str] = {}
    for line in content.decode("utf-8", errors="replace").splitlines():
        key, equals, value = line.partition("=")
        key = key.strip()
        if equals and _KEY.fullmatch(key) and key.upper() not in ("GROUP", "END_GROUP"):
            value = value.strip().removesuffix(";").strip().strip('"').strip()
            found.setdefault(key.upper(), value)
    return found


def parse_xml(content: bytes, *, where: str) -> Element:
    """Return the root of an XML file without entities or document types.

    Raises:
        SceneError: It is none.
    """
    try:
        root: Element = ElementTree.fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise wrong(where, "plain XML", str(error) or type(error).__name__) from error
    return root


def parse_rpb(content: bytes, *, where: str) -> dict[str, float | list[float]]:
    """Return an `.rpb` file as rasterio's RPC has it: offsets, scales and 4 x 20 coefficients.

    Offsets of line and sample count from 0 at the centre of the first pixel.

    Raises:
        SceneError: A value is missing or no number.
    """
    raw = _assignments(content.decode("utf-8", errors="replace"))
    names = {
        "line_off": "lineOffset", "samp_off": "sampOffset", "lat_off": "latOffset",
        "long_off": "longOffset", "height_off": "heightOffset", "line_scale": "lineScale",
        "samp_scale": "sampScale", "lat_scale": "latScale", "long_scale": "longScale",
        "height_scale": "heightScale",
    }  # fmt: skip
    lists = {
        "line_num_coeff": "lineNumCoef", "line_den_coeff": "lineDenCoef",
        "samp_num_coeff": "sampNumCoef", "samp_den_coeff": "sampDenCoef",
    }  # fmt: skip
    rpc: dict[str, float | list[float]] = {n: number(raw, key, where) for n, key in names.items()}
    for name, key in lists.items():
        parts = re.split(r"[,\s]+", raw.get(key, "").strip("() \n\r\t"))
        rpc[name] = [number({key: part}, key, where) for part in parts]
        if len(parts) != 20:
            raise wrong(where, f"20 coefficients {key}", f"{len(parts)}")
    return rpc


def _assignments(content: str) -> dict[str, str]:
    """Return `key = value;` and `key = (list);`, which may go over many lines, by key."""
    found: dict[str, str] = {}
    key = ""
    for line in content.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            key = name.strip()
        found[key] = f"{found.get(key, '')} {value if equals else line}"
    return {key: value.replace(";", " ").strip() for key, value in found.items()}


def text(values: Mapping[str, str], key: str, where: str) -> str:
    """Return a value that must be there.

    Raises:
        SceneError: It is not.
    """
    if not values.get(key):
        raise wrong(where, f"a value of {key}", "none")
    return values[key]


def number(values: Mapping[str, str], key: str, where: str) -> float:
    """Return a finite number that must be there.

    Raises:
        SceneError: It is missing, no number, or not finite.
    """
    value = _float(text(values, key, where))
    if not math.isfinite(value):
        raise wrong(where, f"a number as {key}", repr(values[key]))
    return value


def angle(values: Mapping[str, str], key: str, where: str, *, low: float, high: float) -> float:
    """Return an angle [deg] between `low` and `high`, or NaN if there is none.

    Raises:
        SceneError: It is out of range.
    """
    if not values.get(key):
        return math.nan
    value = number(values, key, where)
    if not low <= value <= high:
        raise wrong(where, f"{key} in {low:g}..{high:g} deg", f"{value:g}")
    return value


def utc(value: str, patterns: tuple[str, ...], where: str) -> str:
    """Return a time in ISO 8601 with Z; the product's times are taken as UTC.

    Raises:
        SceneError: The time fits none of the `strptime` patterns.
    """
    for pattern in patterns:
        try:
            time = datetime.strptime(value, pattern).replace(tzinfo=UTC)
        except ValueError:
            continue
        return time.isoformat().replace("+00:00", "Z")
    raise wrong(where, f"a time like {' or '.join(patterns)}", repr(value))


def _float(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def wrong(where: str, expected: str, got: str) -> SceneError:
    """Return the error on a metadata file."""
    return SceneError(
        where, expected=expected, got=got,
        todo="compare the file with an intact product's; fetch the product again",
    )  # fmt: skip
