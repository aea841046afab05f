"""Tiles as they are stored in shards: plain, or as one frame of a codec that all tools know."""

from typing import Any

import lz4.frame
import numpy as np
import xxhash
import zstandard

from storage.schema import SchemaError

SUFFIX = {"none": "", "lz4": ".lz4", "zstd": ".zst"}
_ZSTD_LEVEL = 3
_LZ4_LEVEL = 0


def compress(data: bytes, codec: str) -> bytes:
    """Return `data` as one standard frame of "lz4" or "zstd", with its size in the header."""
    if codec == "lz4":
        return bytes(lz4.frame.compress(data, compression_level=_LZ4_LEVEL, store_size=True))
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True).compress(data)


def described(codec: str) -> dict[str, Any]:
    """Return all that a frame's bytes follow from beside the data: a library's version, too."""
    if codec == "lz4":
        return {"codec": codec, "level": _LZ4_LEVEL, "library": lz4.library_version_string()}
    if codec == "zstd":
        library = ".".join(map(str, zstandard.ZSTD_VERSION))
        return {"codec": codec, "level": _ZSTD_LEVEL, "library": library}
    return {"codec": codec}


def checksum(data: bytes | memoryview | np.ndarray) -> int:
    """Return the 32 bits that the set's checksums have for a band's bytes, or for a frame's."""
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def checksums(tile: np.ndarray) -> np.ndarray:
    """Return the checksum of each band of a contiguous tile (band, y, x), uint32."""
    digest = xxhash.xxh3_64_intdigest  # looked up once: a band is hashed in less than a microsecond
    return np.fromiter(map(digest, tile), np.uint64, len(tile)).astype(np.uint32)


def cast(tile: np.ndarray, dtype: str | None, tile_id: str) -> np.ndarray:
    """Return a tile's values as stored, little-endian and C order, in a dtype; None: its own.

    Raises:
        SchemaError: int16 is wanted of float32.
    """
    check_cast(tile.dtype.name, dtype, tile_id)
    return np.ascontiguousarray(tile, np.dtype(dtype or tile.dtype).newbyteorder("<"))


def check_cast(stored: str, dtype: str | None, what: str) -> None:
    """Refuse a dtype that cannot hold what is stored.

    Raises:
        SchemaError: int16 is wanted of float32.
    """
    if dtype == "int16" and stored != "int16":
        raise SchemaError(
            f"{what}: int16 shards can be made of int16 tiles alone, got {stored}, whose values "
            "would be lost; leave dtype out, or build the store with a recipe that stores integers"
        )
