"""Opens damaged products: `python -m tests.pipeline.damaged_products READER COUNT SEED`.

A process of its own, so that a crash of a C library, a hang or too much memory ends it and not
the tests. Prints the count of refused and of opened products as JSON, or the smallest case that
neither opens nor ends in a SceneError.
"""

import contextlib
import faulthandler
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import dask
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipeline.inspect import inspect_scene
from pipeline.readers import open_scene
from storage.schema import SceneError
from tests.pipeline import raw_products as raw
from tests.pipeline.damages import KINDS, Damage, Files, damaged, packed

PAGE = Path(__file__).parents[2] / "docs/add-a-sensor.md"
BLOCK = re.compile(r"^```python file=make_product.py\n(.*?)^```", re.MULTILINE | re.DOTALL)

SMALLER = (("140, 130)", "16, 12)"), ("height=140", "height=16"), ("width=130", "width=12"))


def write_enmap(folder: Path) -> Path:
    """Write the product that the page on sensors makes, of fewer pixels."""
    (script,) = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for many, few in SMALLER:
        assert script.count(many) == 1
        script = script.replace(many, few)
    folder.mkdir()
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True)
    (made,) = (folder / "raw").iterdir()
    for file in made.iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / "raw")
    return folder


PRODUCTS = {
    "l1t": lambda folder: raw.write_l1t(
        folder, raw.hyperion_dn(4, 4), MAP_PROJECTION="UTM", ZONE_NUMBER=33
    ),
    "l1r": lambda folder: raw.write_l1r(folder, raw.hyperion_dn(4, 4), SUN_ELEVATION=30),
    "ahsi": lambda folder: raw.write_ahsi(folder, raw.ahsi_dn(4, 4)),
    "enmap": write_enmap,
}
"""One of each reader, of few bytes."""
PACKINGS = ("zip", "tgz", "tar", "txz", "folder")
SECONDS = 30
"""Most that one product may take, on a busy machine; most take 0.1."""
MEMORY = 2 * 10**9
"""Bytes of all that the process may hold, libraries included."""
NUMBER = st.integers(0, 2**32 - 1)
DAMAGES = st.lists(
    st.builds(Damage, st.sampled_from(KINDS), NUMBER, NUMBER, NUMBER), min_size=1, max_size=3
)


def main(reader: str, count: int, start: int) -> None:
    """Open `count` damaged products of a reader in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as root:
        # What the readers put on disk has no name, so that this folder stays empty.
        (Path(root) / "tmp").mkdir()
        tempfile.tempdir = str(Path(root) / "tmp")
        files = contents(PRODUCTS[reader](Path(root) / "whole"))
        # Address space: what is mapped already, and what the tests may take.
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
        counts: Counter[str] = Counter()

        @seed(start)
        @settings(
            max_examples=count, database=None, deadline=None, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        @given(st.sampled_from(PACKINGS), DAMAGES)
        def only_scene_errors(packing: str, damages: list[Damage]) -> None:
            counts[attempt(Path(root), reader, files, packing, damages)] += 1

        only_scene_errors()
    peak = own_peak()
    assert peak < MEMORY, f"{peak} bytes of memory"
    print(json.dumps({**counts, "peak_mb": peak // 10**6}))  # noqa: T201


def own_peak() -> int:
    """Return this process's largest resident memory [byte]; ru_maxrss has the parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def contents(folder: Path) -> Files:
    return [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())]


def attempt(root: Path, reader: str, files: Files, packing: str, damages: list[Damage]) -> str:
    """Open one damaged product and use it; return what came of it."""
    print(f"{packing} {damages}", file=sys.stderr, flush=True)  # noqa: T201
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    before = seen(root)
    path = written(work, reader, files, packing, damages)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        used(path, damages)
        return "opened"
    except SceneError as error:
        check_words(error, root)
        return "refused"
    finally:
        faulthandler.cancel_dump_traceback_later()
        assert seen(root) == before, "left files outside the product"


def check_words(error: SceneError, root: Path) -> None:
    assert str(root) in error.where, f"names no file: {error}"
    assert error.got, f"gives no reason: {error}"


def used(path: Path, damages: list[Damage]) -> None:
    """Use a product as `inspect` and a build do: all its metadata, some of its pixels."""
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore")
        scene = open_scene(path)
        pickle.dumps(scene)
        json.dumps(scene.attrs)
        if scene.attrs["level"] in ("L1T", "L1GST") and damages[0].place % 32:
            chosen = np.unique([d.file % scene.sizes["band"] for d in damages])
            scene.dn[chosen, :5].compute()
        else:
            inspect_scene(path)


def written(work: Path, reader: str, files: Files, packing: str, damages: list[Damage]) -> Path:
    files = damaged(files, damages)
    if packing != "folder":
        path = work / f"{reader}.{packing}"
        path.write_bytes(packed(files, packing, damages) if files else b"")
        return path
    folder = work / reader
    folder.mkdir()
    for name, data in files:
        # Names that the file system takes and that stay in the folder.
        with contextlib.suppress(OSError, ValueError):
            (folder / name.replace("/", "_").replace("\\", "_")).write_bytes(data)
    for damage in damages:
        if damage.kind in ("symlink", "hardlink"):
            target = "/etc/passwd" if damage.value & 1 else "../../whole"
            with contextlib.suppress(FileExistsError):
                (folder / f"link{damage.place}_MTL.TXT").symlink_to(target)
        elif damage.kind == "huge" and files:
            with contextlib.suppress(OSError, ValueError):
                # Not some GB: those are a size that a product may have, and take seconds to hash.
                size = 2 ** (10 + damage.value % 15 + 24 * (damage.place & 1))
                os.truncate(folder / files[damage.file % len(files)][0], size)
    return folder


def seen(root: Path) -> list[str]:
    """Return the names of what is around the work folder, and in the current one."""
    around = [*os.listdir(root), *os.listdir(root / "tmp"), *os.listdir(root / "whole")]
    return sorted([*around, *os.listdir(".")])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
