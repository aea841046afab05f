"""What came from a bucket is kept on disk: once, whole, not too much, for all processes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from storage.payloads import Payloads
from storage.stream import Stream, open_shards, select
from tests.storage.buckets import ROOT, Bucket, stub
from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles

KEY = "ab" * 32
SIZE = 1000


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("payloads"), make_tiles("a", 12))


@pytest.fixture
def bucket(local, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERSIGMA_CACHE", str(tmp_path / "cache"))
    made = Bucket(local.root)
    stub(monkeypatch, made)
    return made


def stream(payloads, **more):
    shards = open_shards(ROOT)
    how = {"batch_size": 6, "bands": 2, "seed": 1, "payloads": payloads} | more
    return Stream(shards, select(shards), **how)


def take(batches, count):
    return [next(batches) for _ in range(count)]


def kept(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def whole(number, size=SIZE):
    return memoryview(np.random.default_rng(number).bytes(size))


def read(payloads, number, size=SIZE):
    into = bytearray(10)
    if not payloads.read(KEY, (number, size), 5, memoryview(into)):
        return None
    return bytes(into)


def test_a_second_epoch_makes_no_request(local, bucket, tmp_path):
    shards = open_shards(local.root)
    plain = take(Stream(shards, select(shards), batch_size=6, bands=2, seed=1), 6)
    with stream(Payloads(tmp_path / "kept")) as remote:
        got = take(remote, 2)
        assert len(bucket.asked) == 12
        assert {length for _, _, length in bucket.asked} == {4 * 8192}
        got += take(remote, 4)
    with stream(Payloads(tmp_path / "kept")) as another:
        take(another, 2)
    assert len(bucket.asked) == 12
    for a, b in zip(got, plain, strict=True):
        np.testing.assert_array_equal(a.tiles, b.tiles)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_file_is_fetched_anew(bucket, tmp_path, known, how):
    with stream(Payloads(tmp_path / "kept"), bands=None) as remote:
        first = take(remote, 2)
        for path in kept(tmp_path / "kept"):
            data = bytearray(path.read_bytes())
            data[20000] ^= 255
            path.write_bytes({"flip": data, "cut": data[:9000], "empty": b""}[how])
        again = remote if known else stream(Payloads(tmp_path / "kept"), bands=None)
        again.load_state_dict({"epoch": 0, "position": 0})
        second = take(again, 2)
        assert len(bucket.asked) == 24
        take(again, 2)
        again.close()
    assert len(bucket.asked) == 24
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.tiles, b.tiles)
        assert b.damaged == ()


def test_what_was_read_least_recently_goes(tmp_path):
    payloads = Payloads(tmp_path, most=20 * SIZE)
    for number in range(100):
        payloads.keep(KEY, (number, SIZE), whole(number))
        assert read(payloads, 0) == whole(0)[5:15]
        assert sum(path.stat().st_size for path in kept(tmp_path)) <= 20 * SIZE * 1.1
    have = [number for number in range(100) if read(payloads, number) is not None]
    assert have == [0, *range(100 - len(have) + 1, 100)]
    assert len(have) >= 15


def test_what_killed_processes_left_goes_and_what_is_being_written_stays(tmp_path):
    payloads = Payloads(tmp_path)
    payloads.keep(KEY, (0, SIZE), whole(0))
    old, new = (kept(tmp_path)[0].with_name(f"{name}.part") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    payloads.sweep()
    assert not old.exists()
    assert new.exists()
    assert read(payloads, 0) == whole(0)[5:15]


def test_a_disk_that_is_full_or_away_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    payloads = Payloads(tmp_path / "file" / "below")
    payloads.keep(KEY, (0, SIZE), whole(0))
    assert not payloads.forget(KEY, (0, SIZE))
    payloads.sweep()
    assert read(payloads, 0) is None


SCRIPT = """
import sys
import numpy as np
from storage.payloads import Payloads

payloads = Payloads(sys.argv[1], most=int(sys.argv[2]))
rng = np.random.default_rng(int(sys.argv[3]))
print("going", flush=True)
for _ in range(int(sys.argv[4])):
    number, into = int(rng.integers(200)), bytearray(10)
    whole = np.random.default_rng(number).bytes(200_000)
    if payloads.read("ab" * 32, (number, 200_000), 5, memoryview(into)):
        assert into == whole[5:15], number
    else:
        payloads.keep("ab" * 32, (number, 200_000), memoryview(whole))
"""


def start(folder, most, seed, count):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder, str(most), str(seed), str(count)],
        env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_processes_share_it(tmp_path):
    most = 100 * 200_000
    running = [start(tmp_path, most, seed, 600) for seed in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    for process in running:
        process.stdout.close()
    assert not list(tmp_path.rglob("*.part"))
    # A tenth more for each process, and what each was writing.
    assert sum(path.stat().st_size for path in kept(tmp_path)) <= most * 1.2
    payloads = Payloads(tmp_path)
    have = [number for number in range(200) if read(payloads, number, 200_000) is not None]
    assert len(have) > 50


def test_a_kill_while_keeping_leaves_no_bad_file(tmp_path):
    rng = np.random.default_rng(0)
    for round_number in range(6):
        with start(tmp_path, 10**9, round_number, 10**6) as process:
            assert process.stdout.readline() == b"going\n"
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
    payloads = Payloads(tmp_path)
    files = [path for path in kept(tmp_path) if path.suffix != ".part"]
    have = [number for number in range(200) if read(payloads, number, 200_000) is not None]
    for number in have:
        assert read(payloads, number, 200_000) == whole(number, 200_000)[5:15]
    assert len(have) == len(files) > 0
