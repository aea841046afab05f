"""The words and shapes that all parts meet at: scene, tile, shard; and the errors that say so."""

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr  # seconds that a reader of shards does not need

TILE_SIZE = 64
SPLITS = ("train", "val", "test")
SENSORS = ("hyperion", "ahsi", "zy1_ahsi", "enmap")
"""In the order of their codes: a new one goes to the end."""

SCENE_ATTRS = (
    "sensor", "platform", "scene_id", "level", "acquired",
    "sun_elevation", "sun_azimuth", "view_zenith", "nodata", "sources",
)  # fmt: skip

BAND_COORDS = ("band", "wavelength", "fwhm", "detector", "gain", "offset")
FOOTPRINT_COORDS = ("right_east", "right_north", "down_east", "down_north")
"""Metres on the plane that touches the ellipsoid at a tile's centre, from there to the middle of
its right and of its lower edge: the tile is the parallelogram centre +- right +- down; or NaN."""
PLACE_COORDS = ("row", "col", "lon", "lat", "split", *FOOTPRINT_COORDS)
PATTERN = "pattern"
CHECKSUM = "checksum"
"""uint64 column that the store makes (`storage.patterns`); 0 for a tile without one."""

TILE_DTYPES = ("int16", "float32")
INTEGER_FILL = (0, -32767)
"""Stored integers that are no measurement: borders, dead and uncalibrated bands; overflow.

Source: Hyperion L1R and L1T products; GF-5 AHSI uses 0.
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCENE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class SchemaError(ValueError):
    """Data that breaks the contract between two parts."""


class DamagedError(SchemaError):
    """Bytes of a set of shards that are missing or not what they were."""


class SceneError(SchemaError):
    """A raw product, or a file of one, that is not what it should be.

    Args:
        where: The file (or archive member) that is wrong.
        expected: What should have been there.
        got: What was there.
        todo: What the user can do about it.
    """

    def __init__(self, where: object, *, expected: str, got: str, todo: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}; {todo}")
        self.where = str(where)
        self.expected = expected
        self.got = got
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        # Pickled between processes by keyword, which Exception's own way cannot do.
        return _scene_error, (self.where, self.expected, self.got, self.todo)


def _scene_error(where: str, expected: str, got: str, todo: str) -> SceneError:
    return SceneError(where, expected=expected, got=got, todo=todo)


def tile_id(scene_id: str, row: int, col: int) -> str:
    """Return the stable name of the tile whose corner is pixel (row, col) of the source grid."""
    return f"{scene_id}_r{row}_c{col}"


def split_codes(names: np.ndarray) -> np.ndarray:
    """Return the numbers (uint8) of splits' names in `SPLITS`, 0 for another name."""
    codes = np.zeros(len(names), np.uint8)
    for code, name in enumerate(SPLITS):
        codes[names == name] = code
    return codes


def check_scene_id(name: object) -> str:
    """Return `name` if it can begin tile ids, which name a zarr group and a tar's members.

    A dot is refused: WebDataset takes a member's name up to its first dot as the sample's key,
    so that the `E13.0` in an AHSI product's name would make one sample of a whole shard.

    Raises:
        SchemaError: It is not made of letters, digits, dash and underscore.
    """
    if not isinstance(name, str) or not _SCENE_ID.fullmatch(name):
        raise SchemaError(f"a scene_id must be made of A-Z a-z 0-9 _ -, got {name!r}")
    return name


def check_name(what: str, name: object) -> str:
    """Return `name` if it can be a folder's and a tar member's name.

    Raises:
        SchemaError: It is not made of letters, digits, dot, dash and underscore.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SchemaError(f"{what} must be made of A-Z a-z 0-9 . _ -, got {name!r}")
    return name


def check_tiles(tiles: "xr.Dataset") -> None:
    """Check the Dataset that `tile` returns and the store takes: one scene's tiles.

    Looks at names, shapes, dtypes, places and attrs alone; computes no pixel.

    Args:
        tiles: `tiles` (tile, band, y, x) int16 or float32; `valid` (tile, y, x) bool; coords
            `BAND_COORDS` on band, `PLACE_COORDS` and float32 quality columns on tile. Optional
            `reason` (tile), why each tile is not to be kept, "" if it is; then `counts` has no
            `kept` yet, and `rejected` only what is not among the tiles.

    Raises:
        SchemaError: A variable, dimension, dtype, coordinate, attribute or count that is not so.
    """
    scene = check_scene_id(tiles.attrs.get("scene_id"))
    _check_pixels(scene, tiles)
    _check_coords(scene, tiles, "band", BAND_COORDS)
    _check_coords(scene, tiles, "tile", PLACE_COORDS)
    missing = [n for n in (*SCENE_ATTRS, "steps", "scale", "units") if n not in tiles.attrs]
    if missing:
        raise SchemaError(f"{scene}: tiles must have attrs {missing}, got {sorted(tiles.attrs)}")
    if tiles.attrs["sensor"] not in SENSORS:
        raise SchemaError(f"{scene}: sensor must be in {SENSORS}, got {tiles.attrs['sensor']!r}")
    unknown = set(np.unique(tiles.split.values)) - set(SPLITS)
    if unknown:
        raise SchemaError(f"{scene}: split must be in {SPLITS}, got {sorted(unknown)}")
    _check_counts(scene, tiles)


def _check_pixels(scene: str, tiles: "xr.Dataset") -> None:
    dims: dict[str, tuple[Hashable, ...]] = {
        "tiles": ("tile", "band", "y", "x"),
        "valid": ("tile", "y", "x"),
    }
    for name, expected in dims.items():
        got = tiles[name].dims if name in tiles else "nothing"
        if got != expected:
            raise SchemaError(f"{scene}: {name} must have dims {expected}, got {got}")
    if (side := (tiles.sizes["y"], tiles.sizes["x"])) != (TILE_SIZE, TILE_SIZE):
        raise SchemaError(f"{scene}: a tile must be {TILE_SIZE} x {TILE_SIZE} pixels, got {side}")
    if tiles.tiles.dtype.name not in TILE_DTYPES or tiles.valid.dtype != bool:
        got = f"{tiles.tiles.dtype}, {tiles.valid.dtype}"
        raise SchemaError(f"{scene}: tiles, valid must be {TILE_DTYPES}, bool, got {got}")


def _check_coords(scene: str, tiles: "xr.Dataset", dim: str, required: tuple[str, ...]) -> None:
    found = {str(n): c for n, c in tiles.coords.items() if c.dims == (dim,)}
    found = {name: c for name, c in found.items() if name not in ("tile", "tile_id")}
    missing = [name for name in required if name not in found]
    if missing:
        raise SchemaError(f"{scene}: coords on {dim} must include {missing}, got {sorted(found)}")
    for name, coord in found.items():
        kind = "U" if name in ("split", "detector") else "iuf"
        if coord.dtype.kind not in kind + "OT" * (kind == "U"):
            raise SchemaError(f"{scene}: coord {name} must be of kind {kind}, got {coord.dtype}")


def _check_counts(scene: str, tiles: "xr.Dataset") -> None:
    counts = tiles.attrs.get("counts", {})
    rejected = sum(counts.get("rejected", {}).values())
    candidates = tiles.sizes["tile"] if "reason" in tiles else counts.get("kept")
    if candidates != tiles.sizes["tile"] or counts.get("in") != candidates + rejected:
        raise SchemaError(
            f"{scene}: counts must reconcile, in = kept (or with a reason) + rejected and "
            f"{tiles.sizes['tile']} tiles, got {counts}"
        )
    corners = np.stack([tiles.row.values, tiles.col.values])
    if np.unique(corners, axis=1).shape[1] != tiles.sizes["tile"]:
        raise SchemaError(f"{scene}: two tiles have the same row and col")
