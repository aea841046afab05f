"""Shards in a bucket: the bytes of a folder's, and no set before its end."""

import hashlib
import time

import obstore
import pytest

from storage import lock, places, shardwork
from storage.location import files_at
from storage.schema import SchemaError
from storage.shards import ShardOptions, write_shards
from storage.shardset import open_shards
from tests.storage import shard_runs
from tests.storage.shard_runs import OPTIONS
from tests.storage.tiles import build, make_store, make_tiles


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    repo = make_store(folder / "store")
    build(repo, make_tiles("a", 8))
    build(repo, make_tiles("b", 7))
    for version in ("v1", "v2"):
        write_shards(folder / "store", folder / version, version=version, options=OPTIONS)
    return folder


def in_folder(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def in_bucket(url):
    files = files_at(url)
    names = [entry["path"] for batch in obstore.list(files) for entry in batch]
    return {name: hashlib.sha256(bytes(files.get(name).bytes())).hexdigest() for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bucket_gets_the_same_bytes_as_a_folder(made, location, jobs):
    manifest = write_shards(made / "store", location, options=OPTIONS, jobs=jobs)
    assert in_bucket(location) == in_folder(made / "v2")
    opened = open_shards(location, verify=True)
    assert opened.manifest == manifest == open_shards(made / "v2").manifest
    assert opened.index["tile_id"].equals(open_shards(made / "v2").index["tile_id"])
    assert write_shards(made / "store", location, options=OPTIONS) == manifest
    with pytest.raises(SchemaError, match="tiles_per_shard 3, not v2, tiles_per_shard 5"):
        write_shards(made / "store", location, options=ShardOptions(tiles_per_shard=5))


@pytest.mark.slow
def test_from_a_store_in_a_bucket_to_a_bucket(made, location):
    repo = make_store(f"{location}/store")
    build(repo, make_tiles("a", 8))
    write_shards(f"{location}/store", f"{location}/shards", options=OPTIONS, jobs=2)
    found = open_shards(f"{location}/shards", verify=True).manifest
    assert found["shards"] == open_shards(made / "v1").manifest["shards"]


@pytest.mark.slow
def test_a_killed_run_leaves_no_set_and_goes_on(made, location, objects, monkeypatch):
    process = shard_runs.start(made / "store", location, jobs=1, seconds=0.1, env=objects)
    place = places.place_of(location)
    deadline = time.monotonic() + 60
    while sum(name.endswith(".record") for name in place.names()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    with pytest.raises(SchemaError, match=r"no manifest\.json"):
        open_shards(location)
    records = [name for name in place.names() if name.endswith(".record")]
    written = []
    original = shardwork._write
    monkeypatch.setattr(shardwork, "_write", lambda *a: written.append(a[2].name) or original(*a))
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)  # for which the dead one's is waited for
    write_shards(made / "store", location, options=OPTIONS)
    assert in_bucket(location) == in_folder(made / "v2")
    assert not {f".unfinished/{name}.record" for name in written} & set(records)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "bucket"])
def test_shards_are_taken_from_a_set_of_before(made, location, monkeypatch, source):
    previous = made / "v1"
    if source == "bucket":
        previous = f"{location}/v1"
        write_shards(made / "store", previous, version="v1", options=OPTIONS)
        sent = []
        monkeypatch.setattr(places, "_copy", lambda *a: sent.append(a))
    written = []
    original = shardwork._write
    monkeypatch.setattr(shardwork, "_write", lambda *a: written.append(a[2].name) or original(*a))
    write_shards(made / "store", f"{location}/v2", options=OPTIONS, previous=previous)
    assert in_bucket(f"{location}/v2") == in_folder(made / "v2")
    assert 0 < len(written) < len(open_shards(made / "v2").manifest["shards"])
    if source == "bucket":
        assert not sent  # the server copied


@pytest.mark.slow
def test_a_folder_takes_shards_from_a_bucket(made, location, tmp_path):
    write_shards(made / "store", location, version="v1", options=OPTIONS)
    write_shards(made / "store", tmp_path / "v2", options=OPTIONS, previous=location)
    assert in_folder(tmp_path / "v2") == in_folder(made / "v2")


@pytest.mark.slow
def test_a_prefix_with_other_files_is_refused(made, location):
    files_at(location).put("train/hyperion-000000.tar", b"precious")
    with pytest.raises(SchemaError, match="new or an empty folder, got files such as train/hyp"):
        write_shards(made / "store", location, options=OPTIONS)
    assert set(in_bucket(location)) == {"train/hyperion-000000.tar"}


@pytest.mark.slow
def test_an_upload_that_fails_leaves_nothing(location):
    place = places.place_of(location)

    def fail_after(parts):
        with place.writing("large") as sink:
            for _ in range(parts):
                sink.write(bytes(8 * 2**20))
            raise ZeroDivisionError

    for parts in (0, 1, 5):
        with pytest.raises(ZeroDivisionError):
            fail_after(parts)
    assert place.names() == []
    with place.writing("large") as sink:
        for number in range(5):
            sink.write(bytes([number]) * (8 * 2**20))
    assert place.size("large") == 40 * 2**20
    assert places.digest(place, "large") == sink.sha256
    assert place.read("large", 8 * 2**20 - 1, 2) == b"\0\1"
