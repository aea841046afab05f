from types import SimpleNamespace

import pytest

from pipeline.outputs import make_shards
from storage import store
from storage.shards import write_shards
from storage.shardset import open_shards
from storage.versions import find_version
from tests.storage.tiles import build, make_store, make_tiles


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_version_takes_shards_of_the_set_before(tmp_path, damaged):
    location = tmp_path / "store"
    repo = make_store(location)
    config = SimpleNamespace(store=location, shards=tmp_path / "shards")
    for scenes in ([make_tiles("a", 9), make_tiles("b", 9, sensor="ahsi")], [make_tiles("c", 9)]):
        build(repo, *scenes)
        version = find_version(store.open_repository(location), None)
        folder = make_shards(config, version, {"passed": True, "snapshot": version.snapshot})
        if damaged and version.tag == "v1":
            (folder / "masks.npy").write_bytes(b"")
    assert folder == tmp_path / "shards/v2"
    write_shards(location, tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")
    linked = [path for path in folder.rglob("*.tar") if path.stat().st_nlink > 1]
    shards = open_shards(folder).manifest["shards"]
    assert bool(linked) is not damaged
    assert len(linked) < len(shards)
