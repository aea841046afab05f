"""Sets in buckets: the same batches, whatever single requests do."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from obstore.exceptions import GenericError

from storage.schema import SchemaError
from storage.stream import DamagedError, Stream, open_shards, select
from tests.storage.buckets import ROOT, Bucket, stub
from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    return make_set(folder, make_tiles("a", 30), make_tiles("b", 13))


@pytest.fixture
def bucket(local, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERSIGMA_CACHE", str(tmp_path / "cache"))
    made = Bucket(local.root)
    stub(monkeypatch, made)
    return made


def stream(shards, **more):
    return Stream(shards, select(shards), **{"batch_size": 6, "bands": 2, "seed": 1} | more)


def take(batches, count):
    return [next(batches) for _ in range(count)]


def test_a_bucket_gives_the_batches_of_the_folder(local, bucket):
    shards = open_shards(f"{ROOT}/")
    assert shards.root == ROOT
    assert shards.index["tile_id"] == local.index["tile_id"]
    expected = take(stream(local, valid=True), 15)
    with stream(shards, valid=True) as remote:
        for got, plain in zip(take(remote, 15), expected, strict=True):
            np.testing.assert_array_equal(got.tiles, plain.tiles)
            np.testing.assert_array_equal(got.valid, plain.valid)
            assert (got.tile_ids, got.after) == (plain.tile_ids, plain.after)
    # Of the shards, nothing but the windows: 2 bands of 4.
    assert {length for _, _, length in bucket.asked} == {2 * 8192}
    assert len(bucket.asked) == 15 * 6
    with Stream(open_shards(ROOT), [3, 5], batch_size=2, bands=None, seed=0) as whole:
        assert next(whole).tiles.shape == (2, 4, 64, 64)


def test_requests_run_beside_each_other_but_not_too_many(bucket, monkeypatch):
    monkeypatch.setattr("storage.requests.CONCURRENCY", 5)
    with stream(open_shards(ROOT), batch_size=20) as remote:
        take(remote, 2)
    assert bucket.most == 5


def test_what_fails_twice_is_asked_a_third_time(local, bucket):
    def answer(before, name, start, length):
        if before == 0:
            return GenericError("503")
        return b"short" if before == 1 else None

    bucket.answer = answer
    with stream(open_shards(ROOT)) as remote:
        got = next(remote)
    np.testing.assert_array_equal(got.tiles, next(stream(local)).tiles)
    assert len(bucket.asked) == 3 * 6
    assert got.damaged == ()


@pytest.mark.parametrize(("fault", "asked", "words"), [
    (GenericError("503 slow down"), 3, r"from byte \d+ on in 3 tries: .*503 slow down"),
    (b"short", 3, r"from byte \d+ on in 3 tries: 5 bytes of 16384"),
    (TimeoutError("no answer"), 3, r"in 3 tries: no answer"),
    (FileNotFoundError("404"), 1, r"is not there: 404"),
])  # fmt: skip
def test_what_fails_for_ever_is_left_out_and_told(bucket, caplog, fault, asked, words):
    shards = open_shards(ROOT)
    with stream(shards) as remote:
        lost = int(next(remote).rows[2])
    offset = shards.index["offset"][lost].as_py()
    shard = shards.index["shard"][lost].as_py()
    bucket.asked.clear()

    def answer(before, name, start, length):
        return fault if name == shard and offset <= start < offset + 4 * 8192 else None

    bucket.answer = answer
    with stream(shards) as remote:
        batch = next(remote)
    assert batch.damaged == (shards.index["tile_id"][lost].as_py(),)
    assert len(batch.tiles) == 5
    assert len(bucket.asked) == 5 + asked
    with stream(shards, damaged=0) as remote, pytest.raises(DamagedError, match=words):
        next(remote)
    assert f"{ROOT}/{shard}" in caplog.text


def test_a_set_whose_tables_are_not_the_manifests_is_refused(local, bucket):
    bucket.store.put("index.parquet", bytes(local.manifest["index"]["bytes"]))
    with pytest.raises(SchemaError, match=r"index\.parquet must have the manifest's sha256"):
        open_shards(ROOT)
    bucket.store.put("index.parquet", b"short")
    with pytest.raises(SchemaError, match=r"index\.parquet must have \d+ bytes, got 5"):
        open_shards(ROOT)
    bucket.store.delete("manifest.json")
    with pytest.raises(SchemaError, match="no finished set"):
        open_shards(ROOT)


def test_forking_after_a_read_is_refused_and_before_it_works(tmp_path, local):
    script = tmp_path / "run.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, script, local.root], env=environment(tmp_path), capture_output=True,
        timeout=60, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["read", "refused", "0"], done.stderr


COMMON = """
import os, sys, asyncio, time
from pathlib import Path
import pytest
from tests.storage.buckets import ROOT, Bucket, stub
from storage.stream import Stream, open_shards, select

patch = pytest.MonkeyPatch()

def begin():
    stub(patch, Bucket(Path(sys.argv[1])))

def stream():
    shards = open_shards(ROOT)
    return Stream(shards, select(shards), batch_size=6, bands=2, seed=1)
"""

FORK = (
    COMMON
    + """
def in_child(work):
    if not (child := os.fork()):
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1]

def read():
    begin()  # the store of the stub, too, is of the library that cannot be forked
    next(stream())
    print("read")

def refused():
    try:
        next(opened)
    except RuntimeError as error:
        assert "spawn or forkserver" in str(error)
        print("refused")

in_child(read)
begin()
opened = stream()
next(opened)
sys.stdout.flush()
print(in_child(refused), flush=True)
os._exit(0)
"""
)

HANG = (
    COMMON
    + """
from hypersigma.loader import TileLoader

async def hang(*_, **__):
    print("asked", flush=True)
    await asyncio.sleep(1000)

if __name__ == "__main__":
    begin()
    patch.setattr("storage.requests.get_range_async", hang)
    if sys.argv[2] == "stream":
        next(stream())
    else:
        with TileLoader(stream(), workers=int(sys.argv[2]), method="fork") as loader:
            next(loader)
"""
)


def environment(tmp_path):
    return {**os.environ, "PYTHONPATH": ".", "HYPERSIGMA_CACHE": str(tmp_path / "cache")}


@pytest.mark.parametrize("reader", ["stream", "0"])
def test_ctrl_c_ends_it_while_requests_hang(local, tmp_path, reader):
    (tmp_path / "run.py").write_text(HANG)
    with subprocess.Popen(
        [sys.executable, tmp_path / "run.py", local.root, reader], env=environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == b"asked\n"
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(timeout=5)
        finally:
            process.kill()
        assert process.returncode != 0
        assert time.monotonic() - began < 5
        assert b"KeyboardInterrupt" in process.stderr.read()
