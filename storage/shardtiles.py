"""What shards are made from: tiles by their metadata, from a store or from elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Tile:
    """What goes to a shard."""

    record: dict[str, Any]
    """What its `meta.json` says."""
    pixels: np.ndarray
    """(band, y, x) int16 or float32."""
    valid: np.ndarray
    """(y, x) bool."""


@dataclass(frozen=True)
class Rejected:
    """A tile that was planned, and cannot go to a shard."""

    source: str
    """The file, or the archive and its member."""
    reason: str
    """One of few, to be counted by."""
    detail: str
    """What was expected, and what came."""


class Tiles(Protocol):
    """Tiles that can be read."""

    def contents(self, records: list[dict[str, Any]]) -> Iterator[bytes]:
        """Yield of each tile what tells its pixels and mask from others."""

    def read(self, records: list[dict[str, Any]]) -> Iterator[Tile | Rejected]:
        """Yield each tile, or why there is none."""


class Origin(Protocol):
    """Where tiles come from; goes to other processes, each of which opens it."""

    def open(self) -> Tiles:
        """Return the tiles."""
