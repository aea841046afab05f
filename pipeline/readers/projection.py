"""Whether the map projection that an MTL states is the one that its GeoTIFFs have."""

import math
from collections.abc import Mapping

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from pipeline.readers import metadata
from pipeline.readers.gdal import Header
from storage.schema import SceneError

_TOLERANCE_KM = 2.0
"""Corners are given to the centre or the edge of a pixel, and to few digits."""
_KM_PER_DEG = 111.2


def notes_on_projection(
    header: Header, values: Mapping[str, str], where: str, raster: str
) -> list[str]:
    """Compare a GeoTIFF's CRS with its MTL; return what was accepted though it differs, in words.

    MAP_PROJECTION is UTM or PS (polar stereographic), ZONE_NUMBER negative in the south. Where
    the two differ, the GeoTIFF is right if its corners lie where the MTL has them.

    Args:
        header: Of the GeoTIFF.
        values: Of the MTL.
        where: The MTL.
        raster: The GeoTIFF.

    Raises:
        SceneError: The GeoTIFF has no map grid, or the MTL has another and no corners to tell
            which one is right.
    """
    found = _found(header, raster)
    stated = _stated(values, where)
    if stated is None or found == stated:
        return []
    distance = _corners_apart(header, values, where)
    if distance <= _TOLERANCE_KM:
        return [f"the MTL's projection is {stated}, the GeoTIFF's {found}; the GeoTIFF's was "
                "taken, for its corners lie where the MTL has them"]  # fmt: skip
    raise SceneError(
        where, expected=f"the projection of the GeoTIFFs, {found}",
        got=f"{stated}, and {_words(distance)}",
        todo="the place of this product is doubtful: fetch it again",
    )  # fmt: skip


def _found(header: Header, raster: str) -> str:
    """Return the projection of a GeoTIFF in words."""
    flat = header.transform[0] * header.transform[4] - header.transform[1] * header.transform[3]
    if header.crs is None or not all(map(math.isfinite, header.transform)) or flat == 0:
        raise SceneError(
            raster, expected="a GeoTIFF with a map projection and a grid",
            got="none" if header.crs is None else f"the grid {header.transform}",
            todo="fetch the product again",
        )  # fmt: skip
    try:
        crs = CRS.from_user_input(header.crs)
        code, wkt = crs.to_epsg() or 0, crs.to_wkt()
    except CRSError as error:
        raise SceneError(
            raster, expected="a known map projection", got=f"{error}",
            todo="fetch the product again",
        ) from error  # fmt: skip
    if code // 100 in (326, 327) and 1 <= code % 100 <= 60:
        return _utm(code % 100, south=code // 100 == 327)
    return "polar stereographic" if "Polar_Stereographic" in wkt else header.crs[:80]


def _stated(values: Mapping[str, str], where: str) -> str | None:
    """Return the projection of an MTL in words, None if it states none."""
    name = values.get("MAP_PROJECTION", "").upper()
    if name == "PS":
        return "polar stereographic"
    if not values.get("ZONE_NUMBER"):
        return None if name in ("", "UTM") else name
    zone = metadata.number(values, "ZONE_NUMBER", where)
    if zone != int(zone) or not 1 <= abs(zone) <= 60:
        raise SceneError(
            where, expected="ZONE_NUMBER 1 to 60, negative in the south", got=f"{zone:g}",
            todo="fetch the product again",
        )  # fmt: skip
    return _utm(abs(int(zone)), south=zone < 0)


def _utm(zone: int, *, south: bool) -> str:
    return f"UTM zone {zone} {'south' if south else 'north'}"


def _corners_apart(header: Header, values: Mapping[str, str], where: str) -> float:
    """Return the largest distance [km] of the GeoTIFF's corners from the MTL's, inf if it has none.

    On a sphere, good to 1 % over the few km that matter.
    """
    _, rows, cols = header.shape
    a, b, c, d, e, f = header.transform
    apart = 0.0
    for corner, row, col in (("UL", 0, 0), ("UR", 0, cols), ("LL", rows, 0), ("LR", rows, cols)):
        lon, lat = (
            metadata.angle(values, f"PRODUCT_{corner}_CORNER_{axis}", where, low=-high, high=high)
            for axis, high in (("LON", 180), ("LAT", 90))
        )
        x, y = a * col + b * row + c, d * col + e * row + f
        (east,), (north,) = transform(CRS.from_user_input(header.crs), "EPSG:4326", [x], [y])
        if not all(map(math.isfinite, (lon, lat, east, north))):
            return math.inf
        turn = (lon - east + 180) % 360 - 180
        apart = max(apart, math.hypot(turn * math.cos(math.radians(lat)), lat - north))
    return apart * _KM_PER_DEG


def _words(distance: float) -> str:
    if math.isinf(distance):
        return "no corners in longitude and latitude to tell which one is right"
    return f"corners {distance:.0f} km away from the GeoTIFFs'"
