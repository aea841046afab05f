"""Tiles by worker processes: the stream's own batches, whatever starts, stops or kills them."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from hypersigma.loader import TileLoader, turn
from storage.stream import DamagedError, Stream, open_shards, select
from tests.storage.sets import damage, make_set
from tests.storage.tiles import make_tiles


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    return make_set(folder, make_tiles("a", 30), make_tiles("b", 13))


def stream(shards, **more):
    return Stream(shards, select(shards), **{"batch_size": 4, "bands": 2, "seed": 1} | more)


def take(batches, count):
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize(("workers", "method"),
                         [(0, "spawn"), (1, "fork"), (2, "forkserver"), (2, "spawn")])  # fmt: skip
def test_workers_give_the_streams_own_batches_and_go_on_anywhere(shards, workers, method):
    expected = take(stream(shards), 25)
    with TileLoader(stream(shards), workers=workers, method=method) as loader:
        for batch, plain in zip(take(loader, 12), expected, strict=False):
            np.testing.assert_array_equal(batch.stored.numpy(), plain.tiles)
            np.testing.assert_array_equal(batch.wavelength.numpy(), plain.wavelength)
            assert (batch.tile_ids, batch.sensor) == (plain.tile_ids, plain.sensor)
        state = loader.state_dict()
    assert state == expected[11].after
    other = 2 if workers != 2 else 0
    with TileLoader(stream(shards), workers=other) as loader:
        loader.load_state_dict(state)
        found = [batch.tile_ids for batch in take(loader, 12)]
    assert found == [plain.tile_ids for plain in expected[12:24]]
    assert not multiprocessing.active_children() or method != "spawn"


def test_tiles_and_masks_are_turned_alike_and_the_same_after_a_resume(shards):
    plain = take(stream(shards, valid=True), 6)
    with TileLoader(stream(shards, valid=True), augment=True) as loader:
        turned = take(loader, 6)
        loader.load_state_dict(plain[2].after)
        again = take(loader, 3)
    kinds = set()
    for batch, flat in zip(turned, plain, strict=True):
        for number, tile in enumerate(torch.from_numpy(flat.tiles)):
            same = [k for k in range(8) if torch.equal(turn(tile, k), batch.stored[number])]
            mask = torch.from_numpy(flat.valid[number])
            assert any(torch.equal(turn(mask, k), batch.valid[number]) for k in same)
            kinds.update(same)
    assert len(kinds) > 4
    for a, b in zip(again, turned[3:], strict=True):
        assert torch.equal(a.stored, b.stored)
        assert torch.equal(a.valid, b.valid)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_damaged_tiles_end_it_over_all_workers(shards, tmp_path, workers):
    shutil.copytree(shards.root, tmp_path / "out")
    own = open_shards(tmp_path / "out")
    rows = select(own)[::3]
    for row in rows[:6].tolist():
        damage(own, row)
    with TileLoader(stream(own, batch_size=5, bands=None), workers=workers) as loader:
        batches = take(loader, loader.steps_per_epoch)
        lost = {name for batch in batches for name in batch.damaged}
        assert set(loader.skipped) == lost
        given = [name for batch in batches for name in batch.tile_ids]
        assert not lost & set(given)
        assert len(given) + len(loader.skipped) == 40
        assert len(lost) >= 4
    with (
        TileLoader(stream(own, batch_size=5, bands=None, damaged=2), workers=workers) as loader,
        pytest.raises(DamagedError, match="expected at most 2; such as"),
    ):
        take(loader, loader.steps_per_epoch)


def leftovers():
    return sorted(name for name in os.listdir("/dev/shm") if "torch" in name)


def test_a_killed_worker_is_told_within_seconds_and_leaves_nothing(shards):
    before = leftovers()
    with TileLoader(stream(shards), workers=2, method="spawn", most=1) as loader:
        take(loader, 3)
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=f"{victim.pid}"):
            take(loader, 1000)
        assert time.monotonic() - began < 10
    assert multiprocessing.active_children() == []
    assert leftovers() == before


SCRIPT = """
import sys
from hypersigma.loader import TileLoader
from storage.stream import Stream, open_shards, select

if __name__ == "__main__":
    shards = open_shards(sys.argv[1])
    stream = Stream(shards, select(shards), batch_size=4, bands=2, seed=1)
    with TileLoader(stream, workers=2, method=sys.argv[2]) as loader:
        for number, _ in enumerate(loader):
            if number == 5:
                print("going", flush=True)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_end_all_processes_and_leave_nothing(shards, tmp_path, method, how):
    (tmp_path / "run.py").write_text(SCRIPT)
    before = leftovers()
    with subprocess.Popen(
        [sys.executable, tmp_path / "run.py", shards.root, method],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "."},
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"going\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
        process.wait(timeout=10)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    assert leftovers() == before
