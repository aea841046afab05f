"""Labelled pixels: which there are in a split, which are drawn, and the windows around them.

A window is cut inside one tile, reflected at the tile's edge, so that a model never sees a pixel of
another split. Shape letters: N pixels, C bands, H rows, W columns, S window side.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hypersigma.inputs import measured
from storage.schema import TILE_SIZE, SchemaError
from storage.stream import ShardSet, read_tile, select

logger = logging.getLogger(__name__)

TILE_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels (N) of a shard set."""

    tile: np.ndarray
    """Row in the shards' index."""
    y: np.ndarray
    """Row inside the tile."""
    x: np.ndarray
    """Column inside the tile."""
    label: np.ndarray
    """Class, 0-based."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, numbers: np.ndarray) -> "Pixels":
        """Return the pixels with these numbers."""
        return Pixels(self.tile[numbers], self.y[numbers], self.x[numbers], self.label[numbers])

    def by_tile(self) -> Iterator[np.ndarray]:
        """Yield the numbers of the pixels of one tile after another."""
        numbers = np.argsort(self.tile, kind="stable")
        starts = np.flatnonzero(np.diff(self.tile[numbers])) + 1
        yield from (part for part in np.split(numbers, starts) if len(part))


def read_classes(labels: Path) -> list[str]:
    """Return the class names of a labels folder; the first is class 1 of the rasters.

    Raises:
        SchemaError: `classes.json` is missing or not a list of names.
    """
    path = labels / "classes.json"
    todo = "a labels folder holds classes.json and one <scene_id>.npy a scene"
    if not path.is_file():
        raise SchemaError(f"{path}: expected a list of class names, found no file; {todo}")
    names = json.loads(path.read_text(encoding="utf-8"))
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise SchemaError(f"{path}: expected a list of class names, got {names!r}; {todo}")
    return names


def labelled(shards: ShardSet, labels: Path, *, sensor: str, split: str) -> Pixels:
    """Return every labelled pixel of one sensor's tiles in a split that holds a measurement.

    Raises:
        SchemaError: No tile of the split is labelled, a raster does not cover a tile, or a raster
            has a class without a name.
    """
    classes = read_classes(labels)
    parts = []
    for row in select(shards, split=split, sensor=sensor).tolist():
        label = _tile_labels(shards, labels, row, len(classes))
        if label is None or not label.any():
            continue
        y, x = np.nonzero(label * valid_pixels(shards, row))
        parts.append((np.full(len(y), row), y, x, label[y, x].astype(np.int64) - 1))
    if not parts:
        raise SchemaError(
            f"{labels}: expected label rasters of {sensor} scenes with tiles in split {split!r} of "
            f"{shards.root}, found none; check that the file names are scene ids"
        )
    return Pixels(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def draw_per_class(pixels: Pixels, count: int, classes: list[str], *, seed: int) -> Pixels:
    """Draw `count` pixels of each class, or all where there are fewer (which is logged)."""
    drawn = []
    for number, name in enumerate(classes):
        of_class = np.flatnonzero(pixels.label == number)
        if len(of_class) < count:
            logger.warning(
                "class %s: asked for %d pixels, there are %d", name, count, len(of_class)
            )
        rng = np.random.default_rng([seed, number])
        drawn.append(rng.permutation(of_class)[:count])
    return pixels.take(np.sort(np.concatenate(drawn)))


def draw(pixels: Pixels, count: int | None, *, seed: int) -> Pixels:
    """Draw at most `count` pixels, each with the same chance; None takes all."""
    if count is None or count >= len(pixels):
        return pixels
    return pixels.take(np.sort(np.random.default_rng(seed).permutation(len(pixels))[:count]))


def tile_reader(shards: ShardSet) -> Callable[[int], Tensor]:
    """Return a function from index row to stored tile (C, 64, 64) that remembers the last ones."""
    longest = max(len(entry["band"]) for entry in shards.manifest["sensors"].values())
    tiles = max(1, TILE_CACHE_BYTES // (longest * TILE_SIZE**2 * 4))

    @functools.lru_cache(maxsize=tiles)
    def read(row: int) -> Tensor:
        return torch.from_numpy(read_tile(shards, row))

    return read


def valid_pixels(shards: ShardSet, row: int) -> np.ndarray:
    """Return which pixels (y, x) of a tile hold a measurement in any band."""
    if shards.index["valid_fraction"][row].as_py() == 1:
        return np.ones((TILE_SIZE, TILE_SIZE), bool)
    return measured(torch.from_numpy(read_tile(shards, row))).any(dim=0).numpy()


def windows(tile_CHW: Tensor, y_N: np.ndarray, x_N: np.ndarray, size: int) -> Tensor:
    """Cut the windows (N, C, S, S) around pixels of one tile, reflected at the tile's edge."""
    height, width = tile_CHW.shape[-2:]
    y_NS = torch.from_numpy(_reflected(y_N, size, height)).to(tile_CHW.device)
    x_NS = torch.from_numpy(_reflected(x_N, size, width)).to(tile_CHW.device)
    return tile_CHW[:, y_NS[:, :, None], x_NS[:, None, :]].transpose(0, 1).contiguous()


def _reflected(centre_N: np.ndarray, size: int, length: int) -> np.ndarray:
    at_NS = np.abs(centre_N[:, None] + np.arange(size) - size // 2)
    return np.where(at_NS < length, at_NS, 2 * (length - 1) - at_NS)


def _tile_labels(shards: ShardSet, labels: Path, row: int, classes: int) -> np.ndarray | None:
    scene, top, left = (shards.index[name][row].as_py() for name in ("scene_id", "row", "col"))
    path = labels / f"{scene}.npy"
    if not path.is_file():
        return None
    raster = np.load(path, mmap_mode="r", allow_pickle=False)
    label = np.asarray(raster[top : top + TILE_SIZE, left : left + TILE_SIZE])
    if label.shape != (TILE_SIZE, TILE_SIZE):
        raise SchemaError(
            f"{path}: expected labels on the scene's own grid, got {raster.shape}, which does not "
            f"cover the tile at row {top}, column {left}; make the raster from the same product"
        )
    if label.max() > classes:
        raise SchemaError(
            f"{path}: expected classes 0..{classes} (0 is unlabelled), got {label.max()}; "
            "name every class in classes.json"
        )
    return label
