"""Tiles by worker processes: the stream's own batches, whatever starts, stops or kills them."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress

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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_take_turns_and_agree_on_where_they_are(shards, workers, processes):
    rounds = 9  # 10 batches an epoch, so that a round lies on both sides of its end
    expected = take(stream(shards), rounds * processes)
    for process in range(processes):
        mine = expected[process::processes]
        after = [batch.after for batch in expected[processes - 1 :: processes]]
        share = {"workers": workers, "process": process, "processes": processes}
        with TileLoader(stream(shards), method="fork", augment=True, **share) as loader:
            got = take(loader, 5)
        with TileLoader(stream(shards), method="fork", augment=True, **share) as loader:
            loader.load_state_dict(after[4])
            got += take(loader, rounds - 5)
        assert [batch.tile_ids for batch in got] == [plain.tile_ids for plain in mine]
        assert [batch.after for batch in got] == after


def test_tiles_and_masks_are_turned_alike_and_the_same_after_a_resume(shards):
    plain = take(stream(shards, valid=True), 6)
    with TileLoader(stream(shards, valid=True), augment=True) as loader:
        turned = take(loader, 6)
        loader.load_state_dict(plain[2].after)
        again = take(loader, 3)
    kinds = set()
    for batch, flat in zip(turned, plain, strict=True):
        for number, (tile, mask) in enumerate(zip(flat.tiles, flat.valid, strict=True)):
            stored, valid = batch.stored[number].numpy(), batch.valid[number].numpy()
            same = [k for k in range(8) if np.array_equal(turn(tile, k), stored)]
            assert any(np.array_equal(turn(mask, k), valid) for k in same)
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


@pytest.mark.parametrize("workers", [0, 2])
def test_mixed_sets_come_through_with_masks_and_padding(shards, tmp_path, workers):
    other = make_set(tmp_path, make_tiles("c", 9))
    sets = [shards, other]
    how = {"batch_size": 5, "bands": 2, "seed": 4, "order": "shard", "window": 2, "ends": "pad",
           "valid": True, "weights": [1, 2]}  # fmt: skip
    mixed = Stream(sets, [select(one) for one in sets], **how)
    plain = take(Stream(sets, [select(one) for one in sets], **how), 24)
    with TileLoader(mixed, workers=workers, method="fork", pin=False) as loader:
        assert loader.steps_per_epoch == 11
        for got, expected in zip(take(loader, 24), plain, strict=True):
            np.testing.assert_array_equal(got.stored.numpy(), expected.tiles)
            np.testing.assert_array_equal(got.valid.numpy(), expected.valid)
            np.testing.assert_array_equal(got.padding.numpy(), expected.padding)
            assert (got.tile_ids, got.after) == (expected.tile_ids, expected.after)
    assert sum(int(batch.padding.sum()) for batch in plain[:11]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_does_not_grow_with_epochs(shards, tmp_path, workers):
    (tmp_path / "run.py").write_text(MEMORY)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", shards.root, str(workers)], capture_output=True,
        env={**os.environ, "PYTHONPATH": "."}, timeout=120, text=True,
    )  # fmt: skip
    second, eighth = map(int, done.stdout.split())
    assert eighth - second < 20e6, done.stderr


MEMORY = """
import resource
import sys
import psutil
from hypersigma.loader import TileLoader
from storage.stream import Stream, open_shards, select

def used():
    me = psutil.Process()
    return sum(one.memory_info().rss for one in [me, *me.children(recursive=True)])

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    shards = open_shards(sys.argv[1])
    # Epochs of 1,000 tiles: 16 MB each, so that what is kept of one would show.
    rows = select(shards).repeat(24)
    stream = Stream(shards, rows, batch_size=10, bands=2, seed=1, valid=True)
    with TileLoader(stream, workers=int(sys.argv[2]), method="fork", augment=True) as loader:
        for epoch in range(9):
            for _ in range(loader.steps_per_epoch):
                next(loader)
            if epoch in (1, 7):
                print(used())
"""


def test_closing_lets_go_of_all_batches_at_once(shards):
    loader = TileLoader(stream(shards), workers=1, method="fork")
    next(loader)
    running = weakref.ref(loader._running)
    loader.close()
    # What a thread would still have when Python ends, it would destroy then, and Python with it.
    assert running() is None


def test_workers_share_what_they_import(shards):
    with TileLoader(stream(shards), workers=2) as loader:
        next(loader)
        found = multiprocessing.active_children()
        own = [psutil.Process(worker.pid).memory_full_info().uss for worker in found]
    assert len(own) == 2
    assert max(own) < 150e6  # torch alone has more


def leftovers():
    """Shared memory, named by the process that made it, of processes that are gone."""
    made = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    return {name for name in made if not psutil.pid_exists(int(name.split("_")[1]))}


def kill_and_take(pid, loader):
    os.kill(pid, signal.SIGKILL)  # torch may tell of it at any moment from here on
    take(loader, 1000)


def test_a_killed_worker_is_told_within_seconds_and_leaves_nothing(shards):
    before = leftovers()
    with TileLoader(stream(shards), workers=2, method="spawn", most=1) as loader:
        take(loader, 3)
        victim = multiprocessing.active_children()[0]
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=f"{victim.pid}"):
            kill_and_take(victim.pid, loader)
        assert time.monotonic() - began < 10
    assert multiprocessing.active_children() == []
    assert not leftovers() - before  # others test at the same time, and clear up theirs


class Broken:
    """An iterator that got a batch whose worker is no more there to send it."""

    def __init__(self, workers):
        self._workers = workers

    def __next__(self):
        raise ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize(("alive", "told"), [(False, RuntimeError), (True, ConnectionResetError)])
def test_a_connection_that_breaks_with_a_worker_tells_of_the_worker(shards, alive, told):
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    worker.start()
    try:
        if not alive:
            worker.kill()
        loader = TileLoader(stream(shards))
        loader._running = Broken([worker])
        with pytest.raises(told, match="Connection" if alive else str(worker.pid)):
            next(loader)
    finally:
        worker.kill()
        worker.join()
        worker.close()


def test_to_close_after_a_death_is_no_error(shards):
    for pause in (0, 0.005, 0.02):
        with TileLoader(stream(shards), workers=2) as loader:
            next(loader)
            handler = signal.getsignal(signal.SIGCHLD)  # torch's, once it has a worker
            victim = loader._running._workers[1].pid
            with suppress(RuntimeError):
                os.kill(victim, signal.SIGKILL)
                time.sleep(pause)
        assert signal.getsignal(signal.SIGCHLD) is handler
    assert multiprocessing.active_children() == []


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


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("spawn", signal.SIGKILL),
        ("forkserver", signal.SIGINT),
        *(
            pytest.param(method, how, marks=pytest.mark.soak)
            for method, how in (
                ("spawn", signal.SIGINT), ("forkserver", signal.SIGKILL),
                ("fork", signal.SIGINT), ("fork", signal.SIGKILL),
            )
        ),
    ],
)  # fmt: skip
def test_ctrl_c_and_a_kill_end_all_processes_and_leave_nothing(shards, tmp_path, method, how):
    (tmp_path / "run.py").write_text(SCRIPT)
    before = leftovers()
    with subprocess.Popen(
        [sys.executable, tmp_path / "run.py", shards.root, method],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "."},
        start_new_session=True,
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"going\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()  # or a test that fails would wait for ever
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not leftovers() - before  # others test at the same time, and clear up theirs
