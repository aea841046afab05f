"""What a set of shards is made with, beside the version: each option is in its manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storage.schema import SPLITS, TILE_DTYPES, TILE_SIZE

if TYPE_CHECKING:
    import pyarrow as pa
    import zarr

TILES_PER_SHARD = 256
CODECS = ("none", "lz4", "zstd")
_AROUND = 8192
"""Bytes of a tile's headers, meta and padding, about; its label is counted with them."""


@dataclass(frozen=True)
class Condition:
    """Which tiles are wanted. The text goes to the manifest; who understands it is elsewhere."""

    text: str
    choose: "Callable[[zarr.Group, pa.Table], np.ndarray]"
    """Takes an opened version and its `read_index`; returns the rows (int64), ascending."""


@dataclass(frozen=True)
class ShardOptions:
    """What the bytes of a set follow from, beside the version.

    Raises:
        ValueError: A value that is none of those below.
    """

    tiles_per_shard: int | None = TILES_PER_SHARD
    """The last shard of each split and sensor has fewer. Of no meaning with `shard_bytes`."""
    shard_bytes: int | None = None
    """Instead: as many tiles as have about so many bytes before any codec, at least one."""
    dtype: Literal["int16", "float32"] | None = None
    """Of the pixels, values as stored (`scale` stays in the manifest); None: the store's."""
    codec: Literal["none", "lz4", "zstd"] = "none"
    """Of each tile's npy file as one frame."""
    splits: tuple[str, ...] = SPLITS
    where: Condition | None = None
    """None takes all tiles."""
    labels: Path | None = None
    """A folder with `classes.json` and `<scene_id>.npy` (y, x), each on its scene's own grid."""

    def __post_init__(self) -> None:
        for name, choices in (("dtype", (None, *TILE_DTYPES)), ("codec", CODECS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be in {choices}, got {getattr(self, name)!r}")
        if not self.splits or set(self.splits) - set(SPLITS):
            raise ValueError(f"splits must be some of {SPLITS}, got {self.splits}")
        size = self.tiles_per_shard if self.shard_bytes is None else self.shard_bytes
        if size is None or size < 1:
            raise ValueError(
                "tiles_per_shard or shard_bytes must be at least 1, got "
                f"{self.tiles_per_shard} and {self.shard_bytes}"
            )

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's `options`; `labels` are told by who read them."""
        return {
            "tiles_per_shard": self.tiles_per_shard if self.shard_bytes is None else None,
            "shard_bytes": self.shard_bytes,
            "dtype": self.dtype,
            "codec": self.codec,
            "splits": [split for split in SPLITS if split in self.splits],
            "where": None if self.where is None else self.where.text,
            "labels": None,
        }

    def tiles_in_shard(self, bands: int, dtype: str) -> int:
        """Return the tiles of a full shard, from what is known before a pixel is read."""
        if self.shard_bytes is None:
            return int(self.tiles_per_shard or TILES_PER_SHARD)
        pixels = bands * TILE_SIZE**2 * np.dtype(self.dtype or dtype).itemsize
        label = 0 if self.labels is None else TILE_SIZE**2
        return max(1, self.shard_bytes // (pixels + label + _AROUND))
