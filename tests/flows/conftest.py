"""A Prefect server for this folder alone: it takes half a minute to start; and a small dataset."""

from pathlib import Path

import pytest
import yaml
from prefect.testing.utilities import prefect_test_harness

from pipeline import build, plan
from storage.schema import SceneError
from tests.scenes import small_scene


@pytest.fixture(scope="session")
def prefect_api():
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A dataset whose raw products are names alone: `bad` breaks the contract, `late` once."""
    source = tmp_path / "raw"
    source.mkdir()
    tries: dict[str, int] = {}

    def open_scene(path: Path):
        tries[path.name] = tries.get(path.name, 0) + 1
        if path.name == "bad":
            raise SceneError(path, expected="242 bands", got="7", todo="fetch it again")
        if path.name == "late" and tries["late"] == 1:
            raise TimeoutError("the disk was away")
        if path.name.startswith("copy"):  # the same pixels, 60 km from each other
            scene = small_scene(path.name, seed=99)
            east = 366000.0 + 60_000 * int(path.name[4:])
            return scene.assign_attrs(transform=[30.0, 0.0, east, 0.0, -30.0, 5809000.0])
        return small_scene(path.name, seed=len(path.name))

    monkeypatch.setattr(build.readers, "find_scenes", lambda folder: sorted(folder.iterdir()))
    for module in (build, plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: path.name)
    monkeypatch.setattr(build.readers, "open_scene", open_scene)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: small\nsteps: [mask: {}, normalize: {method: scale, scale: 4000}, tile: {}]"
    )
    file = tmp_path / "dataset.yaml"
    settings = {"name": "small", "source": str(source), "store": str(tmp_path / "store")}
    file.write_text(yaml.safe_dump({**settings, "recipe": str(recipe)}))
    return file, source, tries
