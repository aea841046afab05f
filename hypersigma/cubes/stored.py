"""A scene of a tile store, or of shards, put together as one cube, with its raster of labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict

from hypersigma.cubes.cube import Cube, new_cube
from hypersigma.pixels import read_classes
from hypersigma.runfolder import data_version
from storage.schema import INTEGER_FILL, TILE_SIZE, SchemaError
from storage.store import find_version, open_repository, open_version, scene_dataset
from storage.stream import ShardSet, open_shards, read_tile

type Placed = tuple[int, int, NDArray[Any]]
"""Row and column of a tile's corner, and its stored numbers (C, y, x)."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StoredConfig:
    """Where a scene of ours is."""

    scene_id: str
    store: str | None = None
    """The tile store that `hypersigma-data build` wrote: a folder or URL."""
    version: str | None = None
    """Tag of the store's version; null: the newest."""
    shards: Path | None = None
    """Or the folder that `hypersigma-data shards` wrote."""
    labels: Path | None = None
    """Folder with classes.json and one <scene_id>.npy a scene."""

    def __post_init__(self) -> None:
        """See that there is one place.

        Raises:
            ValueError: None, or two.
        """
        if (self.store is None) == (self.shards is None):
            raise ValueError(
                f"expected store or shards, one of them, got {self.store} and {self.shards}"
            )


def read_stored(config: StoredConfig) -> tuple[Cube, dict[str, Any]]:
    """Read a scene; where no tile of it is, nothing is measured.

    Returns:
        The cube, and which version of the data set it is of.

    Raises:
        SchemaError: There is no such scene, or no tile of it.
    """
    if config.store is not None:
        version = find_version(open_repository(config.store), config.version)
        said = {"version": version.tag, "snapshot": version.snapshot}
        return _from_store(config.store, version.tag, config), said
    assert config.shards is not None  # noqa: S101  # the config has one of them
    shards = open_shards(config.shards)
    return _from_shards(shards, config), data_version(shards.manifest)


def read_labels(config: StoredConfig, cube: Cube) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of a scene's pixels (H, W) and the names of the classes; none: all 0.

    Raises:
        SchemaError: No classes.json, or no raster of this scene, or of another size.
    """
    if config.labels is None:
        return np.zeros(cube.sides, np.int64), ()
    names, path = read_classes(config.labels), config.labels / f"{config.scene_id}.npy"
    if not path.is_file():
        raise SchemaError(f"{path}: expected the labels of {config.scene_id}, found no file")
    labels_HW = np.load(path, allow_pickle=False)
    rows, columns = cube.sides
    # Shards say where their tiles are, not how far the scene goes.
    short = any(there < wanted for there, wanted in zip(labels_HW.shape, cube.sides, strict=True))
    if short or (config.store is not None and labels_HW.shape != cube.sides):
        raise SchemaError(
            f"{path}: expected labels of the scene's {cube.sides} pixels, got {labels_HW.shape}; "
            "make the raster from the same product"
        )
    return labels_HW[:rows, :columns].astype(np.int64), tuple(names)


def _from_store(store: str, version: str, config: StoredConfig) -> Cube:
    scene = scene_dataset(open_version(store, version), config.scene_id)
    places = zip(scene.row.values.tolist(), scene.col.values.tolist(), strict=True)

    def tiles() -> Iterator[Placed]:
        for number, (row, column) in enumerate(places):
            yield row, column, scene.tiles.isel(tile=number).values

    rows, columns = scene.attrs["shape"]
    return _together(
        tiles(), (rows, columns, scene.sizes["band"]), scene.wavelength.values,
        scale=float(scene.attrs["scale"]), crs=scene.attrs.get("crs") or None,
        transform=tuple(scene.attrs["transform"][:6]) if scene.attrs.get("transform") else None,
        units=str(scene.attrs["units"]),
        source={"file": config.scene_id, "store": store, "version": version},
    )  # fmt: skip


def _from_shards(shards: ShardSet, config: StoredConfig) -> Cube:
    index = shards.index
    found = np.flatnonzero(np.array(index["scene_id"].to_pylist()) == config.scene_id)
    if not len(found):
        some = sorted(set(index["scene_id"].to_pylist()))[:5]
        raise SchemaError(
            f"{config.shards}: expected tiles of scene {config.scene_id}, found none; there are "
            f"those of {', '.join(some)}"
        )
    rows, columns = (np.array(index[name].to_pylist())[found] for name in ("row", "col"))
    sensor = shards.manifest["sensors"][index["sensor"][int(found[0])].as_py()]

    def tiles() -> Iterator[Placed]:
        for place, row, column in zip(found, rows, columns, strict=True):
            yield int(row), int(column), read_tile(shards, int(place))

    sides = (int(rows.max()) + TILE_SIZE, int(columns.max()) + TILE_SIZE)
    return _together(
        tiles(), (*sides, len(sensor["band"])), np.asarray(sensor["wavelength"]),
        scale=float(sensor["scale"]), units=str(sensor["units"]),
        source={"file": config.scene_id, "shards": str(config.shards),
                "version": shards.manifest["version"]},
    )  # fmt: skip


def _together(
    tiles: Iterator[Placed], shape: tuple[int, int, int], wavelength: NDArray[Any], **known: Any
) -> Cube:
    """Put tiles at their places; float32, NaN where nothing was measured."""
    x_HWC = np.full(shape, np.nan, np.float32)
    for row, column, stored in tiles:
        values = stored.astype(np.float32)
        if stored.dtype.kind != "f":
            values[np.isin(stored, INTEGER_FILL)] = np.nan
        place = x_HWC[row : row + TILE_SIZE, column : column + TILE_SIZE]
        place[:] = values.transpose(1, 2, 0)[: place.shape[0], : place.shape[1]]
    return new_cube(x_HWC, wavelength=wavelength, **known)
