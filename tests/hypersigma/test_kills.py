"""A run that is killed at any instant, and goes on otherwise, gives each tile once an epoch."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from storage.sequence import Sequence, Source
from storage.stream import select
from tests.hypersigma.consumer import SEED, whole_lines
from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles


@pytest.mark.parametrize(("kills", "order"), [
    (6, "global"), pytest.param(200, "global", marks=pytest.mark.soak),
    pytest.param(30, "shard", marks=pytest.mark.soak),
])  # fmt: skip
def test_no_kill_loses_or_repeats_a_tile(tmp_path, kills, order):
    shards = make_set(tmp_path, make_tiles("a", 170, bands=2), make_tiles("b", 91, bands=2))
    log = tmp_path / "log"
    rng = np.random.default_rng([kills, len(order)])
    states = [run_and_kill(shards.root, log, rng, order, workers=n % 3) for n in range(kills)]
    lines, _ = whole_lines(log)
    given = [name for entry in lines for name in entry["ids"]]
    rows = select(shards)
    names = np.array(shards.index["tile_id"].to_pylist())
    shard = shards.index["shard"].combine_chunks().indices.to_numpy()[rows]
    sequence = Sequence([Source(rows, shard)], SEED, order, 2)
    epochs = -(-len(given) // len(rows))
    expected = [n for epoch in range(epochs) for n in names[sequence.draws(epoch).row].tolist()]
    assert given == expected[: len(given)]
    # Not all at an epoch's begin, or nothing was shown.
    assert len({state["position"] for state in states if state}) > min(3, kills // 2)
    assert epochs >= min(3, kills // 20)


def run_and_kill(root, log, rng, order, *, workers):
    """Go on from the log until a random moment; return the state that it stopped at."""
    before = len(whole_lines(log)[0])
    batch, world = int(rng.integers(1, 9)), int(rng.integers(1, 4 if workers < 2 else 3))
    method = "forkserver" if rng.random() < 0.1 else "fork"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hypersigma.consumer", root, log, str(workers), str(batch),
         str(world), f"--order={order}", f"--method={method}"],
        env={**os.environ, "PYTHONPATH": "."}, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        if rng.random() < 0.9:  # else at any moment of the start
            deadline = time.monotonic() + 60
            while len(whole_lines(log)[0]) == before and time.monotonic() < deadline:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
        time.sleep(rng.exponential(0.3))
        assert process.poll() is None, process.stderr.read()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    lines, _ = whole_lines(log)
    return lines[-1]["after"] if lines else None
