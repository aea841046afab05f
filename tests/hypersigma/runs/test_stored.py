import numpy as np
import pytest
import yaml

from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.stored import StoredConfig, read_stored
from storage.schema import SchemaError


def said(tmp_path, *, leave_out=(), **stored):
    path = tmp_path / "ours.yaml"
    path.write_text(
        yaml.safe_dump(
            {"title": "Ours", "task": "segmentation", "where": "built here",
             "leave_out": list(leave_out), "stored": stored}
        )
    )  # fmt: skip
    return path


@pytest.mark.parametrize("place", ["store", "shards"])
@pytest.mark.parametrize("scene_id", ["h1", "a1"])
def test_a_scene_comes_together_from_its_tiles(world, tmp_path, place, scene_id):
    path = said(
        tmp_path, leave_out=[[4, 4]] if scene_id == "a1" else [], scene_id=scene_id,
        labels=str(world.labels), **{place: str(getattr(world, place))},
    )  # fmt: skip
    found = read_benchmark(path)
    wanted = world.cubes[scene_id].transpose(1, 2, 0)
    wanted = np.delete(wanted, 3, 2) if scene_id == "a1" else wanted
    np.testing.assert_array_equal(found.cube.x_HWC, wanted)
    np.testing.assert_array_equal(found.cube.valid_HW, np.isfinite(wanted).all(2))
    label = world.truth[scene_id].copy()
    label[::7] = 0
    np.testing.assert_array_equal(found.labels_HW, label)
    assert found.classes == ("water", "grass", "soil")
    if (place, scene_id) == ("store", "h1"):
        assert found.cube.crs == "EPSG:32633"
        assert found.cube.transform == (30, 0, 500000, 0, -30, 5600000)


def test_bands_that_were_never_measured_are_named(world, tmp_path):
    path = said(tmp_path, scene_id="a1", store=str(world.store))
    with pytest.raises(ValueError, match=r"none in 1 of them; say leave_out: \[\[4, 4\]\]"):
        read_benchmark(path)


def test_what_is_not_there_is_refused(world, tmp_path):
    with pytest.raises(SchemaError, match="scene h9, found none; there are those of a1, h1, h2"):
        read_stored(StoredConfig("h9", shards=world.shards))
    with pytest.raises(ValueError, match="store or shards, one of them, got None and None"):
        StoredConfig("h1")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.json").write_text('["one"]')
    stored = {"scene_id": "h1", "store": str(world.store), "labels": str(labels)}
    with pytest.raises(SchemaError, match="expected the labels of h1, found no file"):
        read_benchmark(said(tmp_path, **stored))
    np.save(labels / "h1.npy", np.ones((64, 255), np.uint8))
    with pytest.raises(SchemaError, match=r"\(64, 256\) pixels, got \(64, 255\)"):
        read_benchmark(said(tmp_path, **stored))
