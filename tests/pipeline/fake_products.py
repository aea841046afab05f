"""Products that are small JSON files, in place of raw ones: builds in seconds, also in processes.

`python -m tests.pipeline.fake_products CONFIG [KILL]` builds; KILL is `POINT:N`, at the N-th call
of which the process kills itself (see `POINTS`). Dask workers take it as `--preload`.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import icechunk

import configs
from pipeline import build, plan, readers
from storage import lock
from storage.schema import SceneError
from tests.scenes import small_scene

RECIPE = "name: small\nsteps: [mask: {}, normalize: {method: scale, scale: 4000}, tile: {}]\n"
POINTS = {
    "fork": (icechunk.Session, "fork"),
    "merge": (icechunk.Session, "merge"),
    "commit": (icechunk.Session, "commit"),
    "amend": (icechunk.Session, "amend"),
    "publish": (icechunk.Repository, "reset_branch"),
    "tag": (icechunk.Repository, "create_tag"),
    "write": (build.store, "write_scene"),
}
"""Where a process can kill itself: `POINT` before the call, `POINT+` after it."""


def write_product(folder: Path, name: str, *, seed: int = 0, **more) -> Path:
    """Write one; `more`: `error` (text), `seconds` that reading takes, `rows`, `scene`, `kill`,
    `away` and `sick` (while such a file is missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"seed": seed, **more}))
    return folder / name


def open_product(path):
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise SceneError(path, expected="JSON", got="none", todo="fetch it again") from error
    time.sleep(content.get("seconds", 0))
    if "error" in content:
        raise SceneError(path, expected="242 bands", got=content["error"], todo="fetch it again")
    if "kill" in content:
        os.kill(os.getpid(), signal.SIGKILL)
    if "away" in content and not Path(content["away"]).exists():
        raise TimeoutError("the disk was away")
    if "sick" in content and not Path(content["sick"]).exists():
        raise ValueError("a library that cannot do it")
    scene = small_scene(
        content.get("scene", path.name), seed=content["seed"], rows=content.get("rows", 128)
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sources = [{"name": path.name, "bytes": path.stat().st_size, "sha256": digest}]
    # A place of its own on the map for each scene.
    place = int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % 40
    transform = [30.0, 0.0, 366000.0 + 10_000 * place, 0.0, -30.0, 5809000.0]
    return scene.assign_attrs(sources=sources, transform=transform)


def install(patch=setattr) -> None:
    """Let the pipeline take such files for products; `patch`: monkeypatch.setattr in a test."""
    patch(readers, "find_scenes", lambda folder: sorted(p for p in Path(folder).iterdir()))
    patch(readers, "open_scene", open_product)
    patch(readers, "verify", lambda scene: None)
    for module in (build, plan):
        patch(module, "scene_id_of_name", lambda path: path.name)


def write_config(folder: Path, location: object, **more) -> Path:
    """Write a dataset's config and recipe into `folder`, its products in `folder/raw`."""
    (folder / "recipe.yaml").write_text(more.pop("recipe", RECIPE))
    settings = {"name": "small", "source": str(folder / "raw"), "store": str(location),
                "recipe": str(folder / "recipe.yaml"), **more}  # fmt: skip
    path = folder / "dataset.yaml"
    path.write_text(json.dumps(settings))
    return path


def kill_at(point: str, number: int) -> None:
    """Let this process kill itself at the `number`-th call of a point, before or (`+`) after it."""
    owner, name = POINTS[point.removesuffix("+")]
    real, calls = getattr(owner, name), iter(range(1, 10**9))

    def wrapped(*args, **kwargs):
        mine = next(calls) == number
        if mine and not point.endswith("+"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def dask_setup(worker) -> None:
    """Be what Dask calls of a module that is preloaded."""
    install()


if __name__ == "__mp_main__":  # in a process that works on one scene apart
    install()
if __name__ == "__main__":
    install()
    lock.LEASE_SECONDS = float(os.environ.get("HYPERSIGMA_LEASE_SECONDS", lock.LEASE_SECONDS))
    if len(sys.argv) > 2:
        at, _, count = sys.argv[2].partition(":")
        kill_at(at, int(count))
    report = build.build_dataset(configs.load(build.DatasetConfig, sys.argv[1]))
    print(report.to_json())  # noqa: T201
    sys.exit(1 if report.failures else 0)
