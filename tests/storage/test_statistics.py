import itertools

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from storage import store
from storage.index import load_index, read_index
from storage.schema import SchemaError
from storage.statistics import add_statistics, read_statistics
from tests.storage.test_sketches import lattice
from tests.storage.tiles import build, make_tiles

SPLITS = ["train", "val", "test"]


def scenes_of(location, *names):
    group = store.open_version(location)
    return [group[f"scenes/{name}"] for name in names]


def state(root):
    """All bytes under /statistics."""
    found = {}
    for name, group in root["statistics"].groups():
        found[name] = (
            dict(group.attrs),
            {
                key: (np.asarray(node[:]).tobytes(), node.shape, dict(node.attrs))
                for key, node in group.arrays()
            },
        )
    return found


def root_of(*added):
    root = zarr.create_group(MemoryStore())
    add_statistics(root, added)
    return root


@pytest.fixture
def scenes(repo, location):
    build(
        repo,
        make_tiles("a", 20),
        make_tiles("b", 7),
        make_tiles("c", 70, seed=3, shift=0.4),
        make_tiles("f", 9, sensor="ahsi", dtype="float32"),
    )
    return scenes_of(location, "a", "b", "c", "f")


def test_the_order_of_scenes_does_not_matter(scenes):
    whole = state(root_of(*scenes))
    assert set(whole) == {"ahsi", "hyperion"}
    for order in itertools.permutations(scenes):
        root = zarr.create_group(MemoryStore())
        for scene in order:
            add_statistics(root, [scene])
        assert state(root) == whole


def test_what_was_added_and_taken_away_leaves_no_trace(scenes):
    root = root_of(scenes[0])
    before = state(root)
    add_statistics(root, scenes[1:])
    assert state(root) != before
    add_statistics(root, [], scenes[1:])
    assert state(root) == before
    add_statistics(root, [scenes[2]], [scenes[0]])
    assert state(root) == state(root_of(scenes[2]))
    with pytest.raises(SchemaError, match="never added"):
        add_statistics(root, [], [scenes[0]])


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_statistics_are_those_of_numpy_in_physical_units(scenes, split):
    found = read_statistics(root_of(*scenes), split=split, probabilities=(0.1, 0.5, 0.9))
    chosen = range(3) if split == "all" else [SPLITS.index(split)]
    for sensor, made in {
        "hyperion": [make_tiles("a", 20), make_tiles("b", 7), make_tiles("c", 70, seed=3)],
        "ahsi": [make_tiles("f", 9, sensor="ahsi", dtype="float32")],
    }.items():
        seen = [
            lattice(t.tiles.values, t.valid.values, [SPLITS.index(s) for s in t.split.values])
            for t in made
        ]
        got = found[sensor]
        for band in range(4):
            values = np.concatenate([each[s, band] for each in seen for s in chosen])
            values = values / made[0].attrs["scale"]
            assert got.count[band] == len(values)
            assert got.mean[band] == pytest.approx(values.mean(), rel=1e-6)
            assert got.std[band] == pytest.approx(values.std(), rel=1e-6)
            exact = np.quantile(values, (0.1, 0.5, 0.9), method="lower")
            np.testing.assert_allclose(got.quantiles[:, band], exact, rtol=0.008)
        assert got.scenes == len(made)
    shift = np.mean([0, 0, 0.4])
    np.testing.assert_allclose(found["hyperion"].wavelength, 400 + 10.0 * np.arange(4) + shift)
    np.testing.assert_array_equal(found["hyperion"].band, np.arange(8, 12))


def test_a_split_without_pixels_has_no_mean(repo, location):
    build(repo, make_tiles("s", 3).assign_coords(split=("tile", ["val"] * 3)))
    got = read_statistics(root_of(*scenes_of(location, "s")))["hyperion"]
    assert got.count.tolist() == [0] * 4
    assert np.isnan(got.mean).all()
    assert np.isnan(got.quantiles).all()


def test_scenes_of_another_kind_have_an_entry_of_their_own(repo, location):
    build(repo, make_tiles("a", 3), make_tiles("b", 3, bands=5), make_tiles("c", 3))
    found = read_statistics(root_of(*scenes_of(location, "a", "b", "c")))
    (other,) = set(found) - {"hyperion"}
    assert other.startswith("hyperion-")
    assert (found["hyperion"].scenes, found[other].scenes) == (2, 1)
    assert len(found[other].band) == 5


def test_an_older_store_has_no_statistics():
    assert read_statistics(zarr.create_group(MemoryStore())) == {}


def test_scenes_and_index_have_footprints_and_patterns(repo, location):
    tiles = make_tiles("a", 70)
    build(repo, tiles, make_tiles("b", 0))
    group = store.open_version(location)
    scene = store.scene_dataset(group, "a")
    table = read_index(group)
    for name in ("right_east", "right_north", "down_east", "down_north"):
        np.testing.assert_array_equal(table[name].to_numpy(), tiles[name].values)
        assert table[name].to_numpy().dtype == np.float32
    pattern = table["pattern"].to_numpy()
    assert pattern.dtype == np.uint64
    assert len(set(pattern.tolist())) == 70
    np.testing.assert_array_equal(scene.pattern.values, pattern)
    assert "sketch" not in scene.variables


def test_an_older_index_reads_as_unknown(repo, location):
    build(repo, make_tiles("a", 4))
    session = repo.writable_session("main")
    root = zarr.open_group(session.store, mode="r+")
    for name in ("right_east", "right_north", "down_east", "down_north", "pattern"):
        del root[f"index/{name}"]
    table = read_index(root)
    assert np.isnan(table["down_north"].to_numpy()).all()
    assert table["pattern"].to_pylist() == [0] * 4
    assert load_index(root).tiles["pattern"].dtype == np.uint64
