"""Sets of shards for tests of what reads them."""

import hashlib

from storage.shards import ShardOptions, write_shards
from storage.stream import open_shards
from tests.storage.tiles import build, make_store


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


def damage(shards, row, *, at=100, count=4):
    """Flip bytes of a tile's payload."""
    path = shards.root / shards.index["shard"][row].as_py()
    with path.open("r+b") as file:
        file.seek(shards.index["offset"][row].as_py() + at)
        found = file.read(count)
        file.seek(-count, 1)
        file.write(bytes(255 - byte for byte in found))
