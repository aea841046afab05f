"""Sets of shards for tests of what reads them."""

import hashlib
import json
import shutil

import lz4.frame
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zstandard

from storage.shards import write_shards
from storage.stream import open_shards
from tests.storage.tiles import build, make_store

NPY_HEADER = 128
"""Bytes before the values of an npy file."""


def make_set(folder, *scenes, tiles_per_shard=8):
    """Write scenes to a store and its shards, and open them."""
    build(make_store(folder / "store"), *scenes)
    write_shards(folder / "store", folder / "out", tiles_per_shard=tiles_per_shard)
    add_sidecars(folder / "out")
    return open_shards(folder / "out")


def add_sidecars(out):
    """Add checksums and masks to a set whose writer makes none yet."""
    manifest = json.loads((out / "manifest.json").read_text())
    if "checksums" in manifest:
        return
    index = pq.read_table(out / "index.parquet").to_pylist()
    widest = max(len(entry["band"]) for entry in manifest["sensors"].values())
    sums = np.zeros((len(index), widest), np.uint32)
    for number, row in enumerate(index):
        data = payload(out, row)
        size = len(data) // len(manifest["sensors"][row["sensor"]]["band"])
        for band in range(len(data) // size):
            sums[number, band] = digest(data[band * size : (band + 1) * size])
    rng = np.random.default_rng(0)
    save_array(out, manifest, "checksums", sums)
    save_array(out, manifest, "masks", rng.integers(0, 256, (len(index), 512), np.uint8))
    manifest["options"] = {"codec": "none"}
    (out / "manifest.json").write_text(json.dumps(manifest))


def compressed(shards, out, codec):
    """Write a set anew with one standard frame a tile, by hand."""
    shutil.copytree(shards.root, out)
    manifest, index = json.loads((out / "manifest.json").read_text()), shards.index.to_pylist()
    frames, sums = {entry["name"]: b"" for entry in manifest["shards"]}, []
    for row in index:
        data = payload(out, row, before=NPY_HEADER)
        assert data.startswith(b"\x93NUMPY")
        frame = encode(data, codec)
        row["offset"], row["length"] = len(frames[row["shard"]]), len(frame)
        frames[row["shard"]] += frame
        sums.append([digest(frame)])
    for entry in manifest["shards"]:
        (out / entry["name"]).write_bytes(frames[entry["name"]])
        entry.update(described(out, entry["name"]))
    pq.write_table(pa.Table.from_pylist(index, shards.index.schema), out / "index.parquet")
    manifest["index"] = described(out, "index.parquet")
    save_array(out, manifest, "checksums", np.array(sums, np.uint32))
    manifest["options"]["codec"] = codec
    (out / "manifest.json").write_text(json.dumps(manifest))
    return open_shards(out)


def encode(data, codec):
    if codec == "lz4":
        return lz4.frame.compress(data)
    return zstandard.ZstdCompressor().compress(data)


def payload(out, row, *, before=0):
    with (out / row["shard"]).open("rb") as file:
        file.seek(row["offset"] - before)
        return file.read(before + row["length"])


def digest(data):
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def save_array(out, manifest, name, values):
    np.save(out / f"{name}.npy", values)
    manifest[name] = described(out, f"{name}.npy")


def described(out, name):
    data = (out / name).read_bytes()
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def damage(shards, row, *, at=100, count=4):
    """Flip bytes of a tile's pixels."""
    path = shards.root / shards.index["shard"][row].as_py()
    with path.open("r+b") as file:
        file.seek(shards.index["offset"][row].as_py() + at)
        found = file.read(count)
        file.seek(-count, 1)
        file.write(bytes(255 - byte for byte in found))
