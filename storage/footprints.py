"""Where tiles and scenes lie on Earth, as polygons of longitude and latitude."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.schema import FOOTPRINT_COORDS

type Floats = NDArray[np.float64]

"""Columns on tile: from its centre to the middle of its right and lower edge [m]."""
_RADIUS, _ECCENTRICITY2 = 6378137.0, 6.69437999014e-3
"""Of the WGS84 ellipsoid [m], [1] (NIMA TR8350.2, tables 3.1 and 3.3)."""
_FLAT = 1e-10
"""Points on one line, but for rounding, enclose less [deg2]; about a square metre."""


def tile_corners(tiles: Mapping[str, NDArray[Any]]) -> Floats:
    """Return the corners (tile, 4, 2) of tiles as lon, lat [deg], in order around each.

    Args:
        tiles: `lon`, `lat` of the centres [deg] and `FOOTPRINT_COORDS` [m], each (tile).
            A tile whose place or whose vectors are unknown, or that has none, is NaN.
    """
    lon, lat = (np.asarray(tiles[name], "f8") for name in ("lon", "lat"))
    if not set(FOOTPRINT_COORDS) <= set(tiles):
        return np.full((lon.size, 4, 2), np.nan)
    right_e, right_n, down_e, down_n = (np.asarray(tiles[name], "f8") for name in FOOTPRINT_COORDS)
    sides = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], "f8")
    east = right_e[:, None] * sides[:, 0] + down_e[:, None] * sides[:, 1]
    north = right_n[:, None] * sides[:, 0] + down_n[:, None] * sides[:, 1]
    east_metres, north_metres = (size[:, None] for size in _degree(lat))
    return np.stack([lon[:, None] + east / east_metres, lat[:, None] + north / north_metres], -1)


def outline(points: Floats) -> Floats:
    """Return the convex hull (corner, 2) of lon, lat (point, 2) [deg], counter-clockwise.

    Longitudes may leave [-180, 180] where the points lie on both sides of the date line. Without
    a corner if no point is known; one or two if they do not span an area.

    Source: A. M. Andrew 1979, doi:10.1016/0020-0190(79)90072-3 (monotone chain).
    """
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return known
    first = known[0, 0]
    known = np.column_stack([first + (known[:, 0] - first + 180) % 360 - 180, known[:, 1]])
    # Sorted by longitude, then latitude; each once.
    ordered = np.unique(_outer(known), axis=0)
    if len(ordered) < 3:
        return ordered
    places = ordered.tolist()
    hull = np.array([*_chain(places), *_chain(places[::-1])])
    return hull if _area(hull) > _FLAT else ordered[[0, -1]]


def geometry(ring: Floats) -> dict[str, Any] | None:
    """Return a convex ring (corner, 2) [deg] as a GeoJSON geometry, cut at the date line.

    None for no corner, a Point or LineString for one or two.

    Source: RFC 7946, sections 3.1 and 3.1.9.
    """
    if len(ring) < 3:
        places = _rounded(_wrapped(ring))
        kind = "LineString" if len(places) == 2 else "Point"
        return (
            {"type": kind, "coordinates": places if kind != "Point" else places[0]}
            if places
            else None
        )
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        part = _clipped(ring + np.array([turn, 0.0]), 180.0, 1.0)
        part = _clipped(part, -180.0, -1.0)
        # Of a part that only touches the line nothing is left to show.
        if len(part) > 2 and np.ptp(part[:, 0]) > 0:
            parts.append([_rounded(np.vstack([part, part[:1]]))])
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def bounds(ring: Floats) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north [deg] of a ring; west > east across the date line.

    Source: RFC 7946, section 5.2.
    """
    if not len(ring):
        return None
    (west, south), (east, north) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    if west < -180 or east > 180:
        west, east = ((value + 180) % 360 - 180 for value in (west, east))
    return tuple(round(v, 6) for v in (west, south, east, north))


def wkt(shape: Mapping[str, Any] | None) -> str | None:
    """Return a GeoJSON geometry as well-known text.

    Source: OGC 06-103r4, section 7.2.
    """
    if shape is None:
        return None
    return f"{shape['type'].upper()} {_text(shape['coordinates'], top=True)}"


def from_wkt(text: str | None) -> dict[str, Any] | None:
    """Return what `wkt` wrote as a GeoJSON geometry."""
    if text is None:
        return None
    kind, _, rest = text.partition(" ")
    numbers = re.sub(r"(-?[0-9.]+) (-?[0-9.]+)", r"[\1, \2]", rest)
    coordinates = json.loads(numbers.translate(str.maketrans("()", "[]")))
    name = _KINDS[kind]
    return {"type": name, "coordinates": coordinates[0] if name == "Point" else coordinates}


_KINDS = {n.upper(): n for n in ("Point", "LineString", "Polygon", "MultiPolygon")}


def _text(coordinates: Any, *, top: bool = False) -> str:
    if not isinstance(coordinates[0], list):
        pair = " ".join(f"{value:.6f}" for value in coordinates)
        return f"({pair})" if top else pair
    return "(" + ", ".join(_text(part) for part in coordinates) + ")"


def _outer(points: Floats) -> Floats:
    """Return the points that are not clearly inside the octagon of the outermost in 8 directions.

    Source: Akl & Toussaint 1978, doi:10.1016/0020-0190(78)90003-6.
    """
    way = np.arange(8) * np.pi / 4
    east, north = np.cos(way), np.sin(way)
    corners = points[np.argmax(points[:, :1] * east + points[:, 1:] * north, axis=0)]
    sides = np.roll(corners, -1, axis=0) - corners
    away = points[:, None] - corners
    left = sides[:, 0] * away[..., 1] - sides[:, 1] * away[..., 0] > _FLAT
    # A side without length has nothing to its left.
    inside = (left | ~sides.any(axis=1)).all(axis=1) & sides.any()
    return points[~inside]


def _chain(points: list[list[float]]) -> list[list[float]]:
    """Return the left turns only, without the last point."""
    chain: list[list[float]] = []
    for x, y in points:
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append([x, y])
    return chain[:-1]


def _degree(lat: Floats) -> tuple[Floats, Floats]:
    """Return the lengths of a degree of longitude and of latitude [m] at latitudes [deg].

    Source: Snyder 1987, USGS Professional Paper 1395, formulas (4-18) to (4-20).
    """
    angle = np.radians(np.clip(lat, -89.9, 89.9))
    bulge = 1 - _ECCENTRICITY2 * np.sin(angle) ** 2
    east = _RADIUS * np.cos(angle) / np.sqrt(bulge)
    north = _RADIUS * (1 - _ECCENTRICITY2) / bulge**1.5
    return np.radians(east), np.radians(north)


def _area(ring: Floats) -> float:
    """Return the area of a ring [deg2]."""
    x, y = (ring - ring[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _clipped(ring: Floats, limit: float, side: float) -> Floats:
    """Return the part of a convex ring where side * lon <= side * limit.

    Source: Sutherland & Hodgman 1974, doi:10.1145/360767.360802.
    """
    kept: list[Floats] = []
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        inside, next_inside = (side * (p[0] - limit) <= 0 for p in (start, end))
        if inside:
            kept.append(start)
        if inside != next_inside:
            share = (limit - start[0]) / (end[0] - start[0])
            kept.append(np.array([limit, start[1] + share * (end[1] - start[1])]))
    return np.array(kept).reshape(-1, 2)


def _wrapped(ring: Floats) -> Floats:
    return np.column_stack([(ring[:, 0] + 180) % 360 - 180, ring[:, 1]])


def _rounded(ring: Floats) -> list[list[float]]:
    """Return places to 6 decimals, a tenth of a metre."""
    places: list[list[float]] = np.round(ring, 6).tolist()
    return places
