"""Labels beside tiles: rasters (y, x) of classes on each scene's own grid, cut as the tiles are."""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.schema import TILE_SIZE, SchemaError

_TODO = "a labels folder holds classes.json and one <scene_id>.npy of integers a scene"


@dataclass(frozen=True)
class Labels:
    """A folder of rasters, checked."""

    folder: Path
    classes: list[str]
    """The first is class 1; 0 is unlabelled."""
    dtype: str
    """Of all rasters."""

    def manifest(self, digests: Iterable[bytes]) -> dict[str, Any]:
        """Return what a manifest says of them.

        Args:
            digests: Of each tile in the order of the set, what `label_digest` gave.
        """
        found = hashlib.sha256()
        for each in digests:
            found.update(each)
        return {"classes": self.classes, "sha256": found.hexdigest(), "dtype": self.dtype}


def open_labels(folder: Path, scene_ids: Iterable[str]) -> Labels:
    """Open a labels folder for some scenes; one without a raster has no labels.

    Raises:
        SchemaError: No class names, no raster of any of the scenes, or unlike ones.
    """
    classes = _classes(folder / "classes.json")
    found: dict[str, str] = {}
    for scene_id in scene_ids:
        raster = _raster(folder, scene_id)
        if raster is not None:
            found.setdefault(raster.dtype.name, scene_id)
    if len(found) != 1:
        got = ", ".join(f"{name} of {scene}" for name, scene in found.items()) or "none"
        raise SchemaError(
            f"{folder}: expected rasters of one dtype for the scenes of the set, got {got}; {_TODO}"
        )
    return Labels(folder, classes, next(iter(found)))


def tile_label(labels: Labels, scene_id: str, row: int, col: int) -> np.ndarray | None:
    """Return the classes (64, 64) of a tile by its corner, None if its scene has no raster.

    Raises:
        SchemaError: The raster does not cover the tile, or has a class without a name.
    """
    raster = _raster(labels.folder, scene_id)
    if raster is None:
        return None
    label = raster[row : row + TILE_SIZE, col : col + TILE_SIZE]
    path, most = labels.folder / f"{scene_id}.npy", len(labels.classes)
    if label.shape != (TILE_SIZE, TILE_SIZE):
        raise SchemaError(
            f"{path}: expected labels on the scene's own grid, got {raster.shape}, which does not "
            f"cover the tile at row {row}, column {col}; make the raster from the same product"
        )
    if label.min() < 0 or label.max() > most:
        raise SchemaError(
            f"{path}: expected classes 0..{most} (0 is unlabelled), got {label.min()} to "
            f"{label.max()}; name every class in classes.json"
        )
    return np.ascontiguousarray(label, np.dtype(labels.dtype).newbyteorder("<"))


def label_digest(label: np.ndarray | None) -> bytes:
    """Return the sha256 of a tile's label, zeros for none."""
    return bytes(32) if label is None else hashlib.sha256(label).digest()


def _classes(path: Path) -> list[str]:
    if not path.is_file():
        raise SchemaError(f"{path}: expected a list of class names, found no file; {_TODO}")
    names = json.loads(path.read_text(encoding="utf-8"))
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise SchemaError(f"{path}: expected a list of class names, got {names!r}; {_TODO}")
    return names


def _raster(folder: Path, scene_id: str) -> np.ndarray | None:
    path = folder / f"{scene_id}.npy"
    try:
        stamp = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _mapped(path, stamp)


@functools.lru_cache(maxsize=8)
def _mapped(path: Path, stamp: int) -> np.ndarray:
    raster = np.load(path, mmap_mode="r", allow_pickle=False)
    if raster.ndim != 2 or raster.dtype.kind not in "iu":
        raise SchemaError(f"{path}: expected integers (y, x), got {raster.dtype} {raster.shape}")
    return np.asarray(raster)
