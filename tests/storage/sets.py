"""Sets of shards for tests of what reads them."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.frames import checksum
from storage.shards import ShardOptions, write_shards
from storage.stream import open_shards
from tests.storage.tiles import build, make_store

SENSORS = ["hyperion", "ahsi", "enmap"]


def make_set(folder, *scenes, tiles_per_shard=8, **options):
    """Write scenes to a store and its shards, and open them."""
    build(make_store(folder / "store"), *scenes)
    options = ShardOptions(tiles_per_shard=tiles_per_shard, **options)
    write_shards(folder / "store", folder / "out", options=options)
    return open_shards(folder / "out")


def described(out, name):
    """Return a file's entry of the manifest."""
    data = (out / name).read_bytes()
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def make_large_set(out, tiles, bands, shards=1):
    """Write a set of many tiles of zeros of three sensors, whose shards are holes."""
    (out / "train").mkdir(parents=True)
    number, length = np.arange(tiles), bands * 8192
    each = -(-tiles // shards)
    names = [f"train/hyperion-{n:06d}.tar" for n in range(shards)]
    columns = {
        "tile_id": [f"scene-{n // 300:05d}_r{n % 300}_c0" for n in range(tiles)],
        "sensor": _coded(number * 3 // tiles, SENSORS),
        "split": _coded(0 * number, ["train"]),
        "shard": _coded(number // each, names),
        "offset": 1000 + number % each * length,
        "length": np.full(tiles, length),
        "spectral": np.zeros(tiles, np.int16),
        **{f"quality{n}": np.random.default_rng(n).random(tiles, np.float32) for n in range(20)},
    }
    pq.write_table(pa.table(columns), out / "index.parquet")
    entries = []
    for first, name in zip(range(0, tiles, each), names, strict=True):
        count = min(each, tiles - first)
        with (out / name).open("wb") as file:
            file.truncate(1000 + count * length)
        entries.append(
            {"name": name, "bytes": 1000 + count * length, "sha256": "", "samples": count}
        )
    np.save(out / "checksums.npy", np.full((tiles, bands), checksum(bytes(8192)), np.uint32))
    np.save(out / "masks.npy", np.zeros((tiles, 512), np.uint8))
    manifest = {
        "schema": "hypersigma-shards/1",
        "tiles": tiles,
        "splits": {"train": tiles},
        "sensors": {name: {"band": list(range(bands)), "dtype": "int16"} for name in SENSORS},
        "spectral": [{"wavelength": [400.0 + n for n in range(bands)]}],
        "shards": entries,
        "options": {"codec": "none"},
        **{name.partition(".")[0]: described(out, name)
           for name in ("index.parquet", "checksums.npy", "masks.npy")},
    }  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def _coded(numbers, names):
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), names)


def damage(shards, row, *, at=100, count=4):
    """Flip bytes of a tile's payload."""
    path = shards.root / shards.index["shard"][row].as_py()
    with path.open("r+b") as file:
        file.seek(shards.index["offset"][row].as_py() + at)
        found = file.read(count)
        file.seek(-count, 1)
        file.write(bytes(255 - byte for byte in found))
