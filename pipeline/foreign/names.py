"""What a tile's name tells: its sensor, its scene, and where in the scene it lies."""

import hashlib
import re
from dataclasses import dataclass

from pipeline.foreign.arrays import UnfitError
from storage.schema import SPLITS, tile_id

LONGEST_ID = 87
"""Characters: with `.tile.npy.zst` a tar header's 100."""
_SENSOR = {"EO1": "hyperion", "GF5": "ahsi"}
_TILE = re.compile(r"(?P<scene>.+)_r(?P<row>\d+)_c(?P<col>\d+)")
_SCENES = (
    # Entity ids: path, row, year, day, instruments, mode, and one more.
    re.compile(r"EO1H\d{10}\d{3}[01]{3}[A-Za-z]\w"),
    re.compile(r"GF5[A-Z]?_AHSI_[EW][\d.p]+_[NS][\d.p]+_\d{8}_\d+_L\d+"),
)
_NUMBERS = re.compile(r"(?:[_-]\d+){1,2}$")
_PATH_ROW = 10
"""Characters of EO1H and a path and a row: places that are visited again."""


@dataclass(frozen=True)
class Named:
    """What a name says."""

    tile_id: str
    scene_id: str
    sensor: str
    row: int
    """Pixel row of its corner in the scene's grid, -1 if the name has none."""
    col: int


def read_name(name: str, sensor: str | None, pattern: re.Pattern[str] | None) -> Named:
    """Return what a file's or a sample's name says, without its extension.

    Without a pattern: `<scene>_r<row>_c<col>`, the names of our own tiles; else the scene is the
    product's name that it begins with, or the name without one or two numbers at its end.

    Args:
        name: Such as EO1H1230242013205110KF_17.
        sensor: Of all names; None: by the first letters.
        pattern: Of whole names, with a group `scene`, and `row` and `col` in pixels if it has them.

    Raises:
        UnfitError: The name says no sensor, is not of the pattern, or is too long.
    """
    sensor = sensor or _SENSOR.get(name[:3].upper())
    if sensor is None:
        raise UnfitError("sensor", f"expected a name that begins with EO1 or GF5, got {name!r}")
    found = (pattern or _TILE).fullmatch(name)
    if found is None and pattern is not None:
        raise UnfitError("name", f"expected a name like {pattern.pattern}, got {name!r}")
    parts = {} if found is None else found.groupdict()
    row, col = (_number(parts.get(part), name) for part in ("row", "col"))
    scene = plain_name(parts.get("scene") or _scene(name))
    own = tile_id(scene, row, col) if row >= 0 and col >= 0 else plain_name(name)
    if len(own) > LONGEST_ID:
        raise UnfitError("name", f"expected at most {LONGEST_ID} characters, got {own!r}")
    return Named(own, scene, sensor, row, col)


def plain_name(name: str) -> str:
    """Return a name of letters, digits, `_` and `-`; a decimal point becomes p, as in E13p0.

    Names with letters beyond ASCII end in a hash of the whole, or two of them could become one.
    """
    text = re.sub(r"(?<=\d)\.(?=\d)", "p", name)
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", text).lstrip("_-") or "tile"
    return plain if name.isascii() else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def split_of(scene_id: str, shares: dict[str, float]) -> str:
    """Return a scene's split, by a hash of its name: the same in every import.

    Hyperion scenes of one path and row are in one split.

    Args:
        scene_id: As `read_name` gives it.
        shares: Of `SPLITS`, which add up to 1.
    """
    known = _SCENES[0].match(scene_id)
    place = scene_id[:_PATH_ROW] if known else scene_id
    draw = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8]) / 2**64
    below = 0.0
    chosen = [split for split in SPLITS if shares.get(split)]
    for split in chosen:
        below += shares[split]
        if draw < below:
            return split
    return chosen[-1]


def _scene(name: str) -> str:
    for product in _SCENES:
        if found := product.match(name):
            return found[0]
    return _NUMBERS.sub("", name) or name


def _number(text: str | None, name: str) -> int:
    if text is None:
        return -1
    if not text.isdecimal() or int(text) >= 2**31:
        raise UnfitError("name", f"expected rows and columns in pixels, got {text!r} in {name!r}")
    return int(text)
