"""Writes shards slowly, in a process of its own that a test kills: STORE OUT JOBS SECONDS."""

import os
import subprocess
import sys
import time
from pathlib import Path

from storage import shardwork
from storage.shards import ShardOptions, write_shards

ROOT = Path(__file__).parents[2]
OPTIONS = ShardOptions(tiles_per_shard=3)

# At the top, so that spawned processes, which import this file again, are slow too.
_SECONDS = float(os.environ.get("SECONDS_A_TILE", "0"))
_add_tile = shardwork._add_tile


def _slowly(*args):
    time.sleep(_SECONDS)
    return _add_tile(*args)


shardwork._add_tile = _slowly


def start(location, out, *, jobs, seconds, env=None):
    """Begin to write shards; return the process."""
    command = [sys.executable, "-m", "tests.storage.shard_runs", str(location), str(out), str(jobs)]
    env = {**os.environ, **(env or {}), "SECONDS_A_TILE": str(seconds), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE)


if __name__ == "__main__":
    write_shards(sys.argv[1], sys.argv[2], options=OPTIONS, jobs=int(sys.argv[3]))
