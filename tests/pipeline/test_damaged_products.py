"""Whatever is done to a product, it opens or ends in a SceneError, in bounded time and memory."""

import gzip
import json
import lzma
import os
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {"l1t": 50, "l1r": 150, "ahsi": 150, "enmap": 150}
"""Cases of each reader in `make test`; each of an L1T opens 242 files."""
CHUNK = 1000


def run(arguments, folder):
    """Run Python in a process and a folder of its own; return what it prints, as JSON."""
    env = {
        **os.environ, "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "store"),
    }  # fmt: skip
    work = folder / "cwd"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], env=env, cwd=work, capture_output=True,
        text=True,
    )  # fmt: skip
    # The process names each case before it opens it: the last one ended it.
    assert done.returncode == 0, f"{arguments} ended {done.returncode}: {done.stderr[-6000:]}"
    assert list(work.iterdir()) == []
    return json.loads(done.stdout)


@pytest.mark.parametrize("reader", COUNTS)
def test_damaged_products_end_in_scene_errors(reader, tmp_path):
    count = COUNTS[reader]
    found = run(["-m", "tests.pipeline.damaged_products", reader, f"{count}", "0"], tmp_path)
    assert found["refused"] > count / 4
    assert found["refused"] + found["opened"] >= count


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("reader", COUNTS)
def test_five_thousand_damaged_products_end_in_scene_errors(reader, seed, tmp_path):
    found = run(["-m", "tests.pipeline.damaged_products", reader, f"{CHUNK}", f"{seed}"], tmp_path)
    assert found["refused"] + found["opened"] >= CHUNK


OPEN = """
import json, resource, sys
from pipeline.readers import open_scene
from storage.schema import SceneError
try:
    open_scene(sys.argv[1])
except SceneError as error:
    status = open("/proc/self/status").read()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps([error.where, error.expected, peak]))
"""


@contextmanager
def packing(path, suffix, info):
    if suffix == "zip":
        with (
            ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open(info.name, "w", force_zip64=True) as file,
        ):
            yield file
        return
    with gzip.open(path, "wb", 1) if suffix == "tgz" else lzma.open(path, "wb", preset=0) as file:
        file.write(info.tobuf())
        yield file


@pytest.mark.soak
@pytest.mark.parametrize("suffix", ["tgz", "txz", "zip"])
def test_a_bomb_is_refused_before_it_fills_memory(suffix, tmp_path):
    path = tmp_path / f"bomb.{suffix}"
    size, zeros = 3 * 2**30, bytes(2**20)
    info = tarfile.TarInfo("EO1H_B001_L1T.TIF")
    info.size = size
    with packing(path, suffix, info) as file:
        for _ in range(size // len(zeros)):
            file.write(zeros)
    where, expected, peak = run(["-c", OPEN, str(path)], tmp_path)
    assert where == str(path)
    assert "unpacks to at most" in expected
    assert peak < 10**9
