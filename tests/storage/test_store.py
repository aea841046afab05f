import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import dask
import icechunk
import numpy as np
import pytest
import zarr

from storage import store, work
from storage.index import empty_index, load_index, read_index, save_index, with_scenes
from storage.scenes import scene_columns
from storage.schema import SchemaError
from tests.storage.tiles import build, make_store, make_tiles, write_in_process


def assert_stored(group, tiles):
    scene = store.scene_dataset(group, tiles.attrs["scene_id"])
    for name in ("tiles", "valid", *tiles.coords):
        expected = tiles[name].values
        np.testing.assert_array_equal(scene[name].values, expected)
        if name != "split":
            assert scene[name].dtype == expected.dtype or expected.dtype.kind == "U"
    for name in ("steps", "sources", "counts", "scale", "sun_elevation"):
        assert scene.attrs[name] == tiles.attrs[name]
    assert np.isnan(scene.attrs["view_zenith"])


@pytest.mark.parametrize(
    ("dtype", "count", "chunks"),
    [("int16", 5, None), ("int16", 70, 9), ("float32", 66, 66), ("int16", 0, None)],
)
def test_a_scene_comes_back_as_it_was_written(repo, location, dtype, count, chunks):
    tiles = make_tiles(count=count, bands=3, dtype=dtype, chunks=chunks)
    build(repo, tiles)
    assert_stored(store.open_version(location), tiles)


def test_every_chunk_is_computed_once_and_few_at_a_time(repo):
    tiles = make_tiles(count=70, bands=2, chunks=9)
    seen = []

    def spy(block):
        seen.append(len(block))
        return block

    spied = tiles.tiles.data.map_blocks(spy, dtype="int16", meta=np.empty((0, 0, 0, 0), "int16"))
    runs = []

    def scheduler(graph, keys, **kwargs):
        before = sum(seen)
        result = dask.get(graph, keys, **kwargs)
        runs.append(sum(seen) - before)
        return result

    with dask.config.set(scheduler=scheduler):
        build(repo, tiles.assign(tiles=(tiles.tiles.dims, spied)))
    assert sum(seen) == 70
    assert max(runs) <= 64


@pytest.fixture
def reads(monkeypatch):
    """Every (key, bytes) that is read from a store from now on."""
    found = []
    real = icechunk.IcechunkStore.get

    async def spy(self, key, prototype, byte_range=None):
        value = await real(self, key, prototype, byte_range)
        found.append((key, 0 if value is None else len(value)))
        return value

    monkeypatch.setattr(icechunk.IcechunkStore, "get", spy)
    return found


def test_reading_a_tile_reads_no_other(repo, location, reads):
    tiles = make_tiles(count=40)
    build(repo, tiles)
    scene = store.scene_dataset(store.open_version(location), "s1")
    reads.clear()
    np.testing.assert_array_equal(scene.tiles[7], tiles.tiles[7])
    assert {key for key, _ in reads} == {"scenes/s1/tiles/c/0/0/0/0"}
    # One tile and the shard's table of 16 bytes a tile, of 40 tiles of 32 kB.
    assert sum(size for _, size in reads) < 1.1 * tiles.tiles[7].nbytes


def test_a_commit_reads_neither_pixels_nor_other_scenes(repo, reads):
    build(repo, make_tiles("old"))
    session = store.begin(repo)
    fork = session.fork()
    store.write_scene(fork, make_tiles("new"))
    reads.clear()
    store.commit_version(repo, {"new": fork}, code_version="1")
    keys = {key for key, _ in reads}
    assert any(key.startswith("scenes/new/row/") for key in keys)
    assert [key for key in keys if key.startswith("scenes/old/")] == []
    assert [key for key in keys if "/tiles/c" in key or "/valid/c" in key] == []


def test_the_layout_is_the_contract(repo, location):
    build(repo, make_tiles(count=70))
    group = store.open_version(location)
    tiles = group["scenes/s1/tiles"]
    assert (tiles.chunks, tiles.shards) == ((1, 4, 64, 64), (64, 4, 64, 64))
    assert tiles.metadata.dimension_names == ("tile", "band", "y", "x")
    assert {"schema", "dataset", "recipe", "recipe_hash", "software"} <= set(group.attrs)


def test_versions_stay_what_they_are(repo, location):
    one = build(repo, make_tiles("s1"))
    two = build(repo, make_tiles("s2", 3), make_tiles("s3", 4))
    assert one.message == "v1: 1 scenes (+1), 5 tiles (+5)"
    assert two.message == "v2: 3 scenes (+2), 12 tiles (+7)"
    assert (two.scenes, two.tiles, two.recipe_hash, two.is_head) == (3, 12, "abc", True)
    assert [v.tag for v in store.versions(repo)] == ["v1", "v2"]
    assert [v.is_head for v in store.versions(repo)] == [False, True]
    group = store.open_version(location, "v1")
    assert sorted(group["scenes"].group_keys()) == ["s1"]
    assert set(read_index(group)["scene_id"].to_pylist()) == {"s1"}
    assert_stored(group, make_tiles("s1"))
    assert set(store.scenes(repo)) == {"s1", "s2", "s3"}


def test_rollback_keeps_all_versions_and_numbers(repo, location):
    build(repo, make_tiles("s1"))
    build(repo, make_tiles("s2"))
    assert store.rollback(repo, "v1").is_head
    assert set(store.scenes(repo)) == {"s1"}
    assert "scenes/s2" not in store.open_version(location)
    assert "scenes/s2" in store.open_version(location, "v2")
    assert build(repo, make_tiles("s3")).tag == "v3"
    change = store.diff(repo, "v2", "v3")
    assert (change.scenes_added, change.scenes_removed) == (("s3",), ("s2",))
    assert (len(change.tiles_added), len(change.tiles_removed)) == (5, 5)


def test_diff_counts_tiles_of_a_changed_scene(repo):
    build(repo, make_tiles("s1", 5), make_tiles("s2", 5))
    replaced = build(repo, make_tiles("s1", 7, seed=1))
    assert replaced.message == "v2: 2 scenes (+0, 1 replaced), 12 tiles (+2)"
    change = store.diff(repo, "v1", "v2")
    assert (change.scenes_added, change.scenes_removed, change.scenes_changed) == ((), (), ("s1",))
    assert change.tiles_added == ("s1_r128_c0", "s1_r64_c128")
    assert change.tiles_removed == ()
    assert len(change.tiles_changed) == 5
    assert store.diff(repo, "v1", "v1").scenes_changed == ()


def test_tags_name_a_version_for_good(repo, location):
    build(repo, make_tiles("s1"))
    build(repo, make_tiles("s2"))
    assert store.tag(repo, "paper", "v1").names == ("paper",)
    assert "scenes/s2" not in store.open_version(location, "paper")
    with pytest.raises(SchemaError, match="taken"):
        store.tag(repo, "paper", "v2")
    with pytest.raises(SchemaError, match="given by"):
        store.tag(repo, "v7", "v2")
    with pytest.raises(SchemaError, match=r"one of \['paper', 'v1', 'v2'\], got 'v9'"):
        store.open_version(location, "v9")


def test_a_writer_that_fails_midway_leaves_no_trace(repo, location):
    session = store.begin(repo)
    good, bad = session.fork(), session.fork()
    store.write_scene(good, make_tiles("good"))
    broken = make_tiles("bad", 130, chunks=10)
    late = broken.tiles.data.map_blocks(fail_late, dtype="int16", meta=np.empty((0,) * 4, "int16"))
    with pytest.raises(RuntimeError, match="sensor"):
        store.write_scene(bad, broken.assign(tiles=(broken.tiles.dims, late)))
    assert "scenes/bad/tiles" in zarr.open_group(bad.store, mode="r")
    version = store.commit_version(repo, {"good": good}, code_version="1")
    group = store.open_version(location)
    assert sorted(group["scenes"].group_keys()) == ["good"]
    assert (version.scenes, version.tiles, set(store.scenes(repo))) == (1, 5, {"good"})


def fail_late(block, block_info=None):
    if block_info and block_info[None]["array-location"][0][0] >= 100:
        raise RuntimeError("a sensor went away")
    return block


def test_an_unfinished_scene_is_not_committed(repo):
    session = store.begin(repo)
    fork = session.fork()
    zarr.open_group(fork.store, mode="r+").create_group("scenes/half")
    good = session.fork()
    store.write_scene(good, make_tiles("good"))
    with pytest.raises(SchemaError, match="half was not written to its end"):
        store.commit_version(repo, {"good": good, "half": fork}, code_version="1")
    assert store.versions(repo) == []
    assert store.commit_version(repo, {"good": good}, code_version="1").scenes == 1


def test_nothing_new_makes_no_version(repo, location):
    with pytest.raises(SchemaError, match="no version yet"):
        store.open_version(location)
    session = store.begin(repo)
    with pytest.raises(SchemaError, match="nothing to commit"):
        store.commit_version(repo, code_version="1")
    with pytest.raises(SchemaError, match="s1 was not written"):
        store.commit_version(repo, {"s1": session.fork()}, code_version="1")
    assert store.versions(repo) == []


def test_two_writers_of_one_scene_and_one_of_another_are_refused(repo):
    session = store.begin(repo)
    forks = {"s1": session.fork(), "s2": session.fork()}
    for seed, fork in enumerate(forks.values()):
        store.write_scene(fork, make_tiles("s1", seed=seed))
    with pytest.raises(icechunk.SessionStateError, match=r"Multiple writers.*/scenes/s1"):
        store.commit_version(repo, forks, code_version="1")
    with pytest.raises(SchemaError, match="s2 was not written"):
        store.commit_version(repo, {"s2": forks["s2"]}, code_version="1")
    assert store.versions(repo) == []


def test_writers_in_threads(repo, location):
    scenes = [make_tiles(f"s{i}", 20, chunks=5) for i in range(4)]
    session = store.begin(repo)
    forks = {tiles.attrs["scene_id"]: session.fork() for tiles in scenes}
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(store.write_scene, forks.values(), scenes))
        assert [count["kept"] for count in counts] == [20] * 4
    assert store.commit_version(repo, forks, code_version="1").tiles == 80
    for tiles in scenes:
        assert_stored(store.open_version(location), tiles)


def test_writers_in_spawned_processes(repo, location):
    session = store.begin(repo)
    names = ["s1", "s2"]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        forks = pool.starmap(write_in_process, [(session.fork(), name) for name in names])
    named = dict(zip(names, forks, strict=True))
    assert store.commit_version(repo, named, code_version="1").scenes == 2
    for name in names:
        assert_stored(store.open_version(location), make_tiles(name))


def test_a_crash_between_commit_and_tag_is_finished_later(repo, location, monkeypatch):
    build(repo, make_tiles("s1"))
    with monkeypatch.context() as patch:
        patch.setattr("storage.versions.finish_version", lambda repo: None)
        with pytest.raises(SchemaError, match="'v2'"):
            build(repo, make_tiles("s2"))
    assert [v.tag for v in store.versions(repo)] == ["v1"]
    assert [v.tag for v in store.versions(make_store(location))] == ["v1", "v2"]


def test_a_commit_by_another_is_not_lost(repo, monkeypatch):
    sessions = [store.begin(repo), store.begin(repo)]
    forks = {name: session.fork() for name, session in zip(("s1", "s2"), sessions, strict=True)}
    for name, fork in forks.items():
        store.write_scene(fork, make_tiles(name))
    save = work.save

    def slow(repo, session, message, metadata):
        monkeypatch.setattr(work, "save", save)
        store.checkpoint(repo, {"s1": forks["s1"]})  # by another builder, in the meantime
        return save(repo, session, message, metadata)

    monkeypatch.setattr(work, "save", slow)
    with pytest.raises(icechunk.ConflictError):
        store.checkpoint(repo, {"s2": forks["s2"]})
    assert set(store.staged(repo)) == {"s1"}
    store.commit_version(repo, {"s2": forks["s2"]}, code_version="1")
    assert set(store.scenes(repo)) == {"s1", "s2"}


def test_checkpointed_scenes_outlast_a_crash_and_are_seen_in_no_version(repo, location):
    build(repo, make_tiles("s1"))
    for name in ("s2", "s3"):
        fork = store.begin(repo).fork()
        store.write_scene(fork, make_tiles(name))
        store.checkpoint(repo, {name: fork})
    assert set(store.scenes(repo)) == {"s1"}
    assert "scenes/s2" not in store.open_version(location)
    again = store.create(location, dataset="demo", recipe="steps: []", recipe_hash="abc")
    fork = store.begin(again).fork()
    assert set(store.staged(again)) == {"s2", "s3"}
    store.write_scene(fork, make_tiles("s4"))
    version = store.commit_version(again, {"s4": fork}, code_version="1")
    assert (version.tag, version.scenes, version.tiles) == ("v2", 4, 20)
    assert_stored(store.open_version(location), make_tiles("s2"))
    messages = [info.message for info in again.ancestry(tag="v2")]
    assert messages[:2] == ["v2: 4 scenes (+3), 20 tiles (+15)", "v1: 1 scenes (+1), 5 tiles (+5)"]


def test_between_the_heads_move_and_its_tag_the_version_before_is_read(repo, location):
    build(repo, make_tiles("s1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icechunk.Repository, "create_tag", lambda *_: None)
        with pytest.raises(SchemaError, match="'v2'"):
            build(repo, make_tiles("s2"))
    assert [v.is_head for v in store.versions(repo)] == [True]
    assert "scenes/s2" not in store.open_version(location)
    store.begin(repo)
    assert "scenes/s2" in store.open_version(location)


def test_work_that_was_begun_before_a_rollback_is_given_up(repo):
    build(repo, make_tiles("s1"))
    build(repo, make_tiles("s2"))
    fork = store.begin(repo).fork()
    store.write_scene(fork, make_tiles("s3"))
    store.checkpoint(repo, {"s3": fork})
    store.rollback(repo, "v1")
    store.begin(repo)
    assert store.staged(repo) == {}


def test_a_version_without_some_scenes(repo, location):
    build(repo, make_tiles("s1"), make_tiles("s2", 3), make_tiles("s3", 4))
    store.begin(repo)
    version = store.commit_version(repo, removed={"s2", "never"}, code_version="1")
    assert version.message == "v2: 2 scenes (+0, 1 removed), 9 tiles (-3)"
    group = store.open_version(location)
    assert sorted(group["scenes"].group_keys()) == ["s1", "s3"]
    assert set(read_index(group)["scene_id"].to_pylist()) == {"s1", "s3"}
    assert "scenes/s2" in store.open_version(location, "v1")


def test_a_version_by_another_recipe(repo, location):
    build(repo, make_tiles("s1"))
    fork = store.begin(repo).fork()
    store.write_scene(fork, make_tiles("s1", seed=1))
    recipe = store.Recipe("other", "xyz")
    version = store.commit_version(repo, {"s1": fork}, recipe=recipe, code_version="1")
    assert version.recipe_hash == "xyz"
    assert store.open_version(location).attrs["recipe"] == "other"
    assert store.open_version(location, "v1").attrs["recipe_hash"] == "abc"


def test_an_index_that_grows_is_the_one_written_at_once(repo, tmp_path):
    names = [f"s{i}" for i in range(5)]
    for name in names:
        extra = {"cloud": ("tile", np.arange(5, dtype="f4"))} if name > "s2" else {}
        build(repo, make_tiles(name).assign_coords(extra))
    session = repo.writable_session("main")
    grown = load_index(zarr.open_group(session.store, mode="r+"))
    save_index(zarr.open_group(session.store, mode="r+"), grown)
    for name, column in with_scenes(
        empty_index(),
        {n: scene_columns(zarr.open_group(session.store, mode="r"), n) for n in names},
    ).tiles.items():
        np.testing.assert_array_equal(grown.tiles[name], column)
    assert grown.scene_ids == names


def test_another_dataset_is_refused(repo, location):
    build(repo, make_tiles("s", 2))
    with pytest.raises(SchemaError, match="another store"):
        store.create(location, dataset="other", recipe="", recipe_hash="abc")


def test_a_store_without_a_version_takes_a_corrected_recipe(repo, location):
    again = store.create(location, dataset="demo", recipe="new", recipe_hash="xyz")
    build(again, make_tiles("s", 2))
    assert store.versions(again)[0].recipe_hash == "xyz"
    assert store.open_version(location).attrs["recipe"] == "new"


def test_a_missing_store_names_the_command(tmp_path):
    with pytest.raises(SchemaError, match="hypersigma-data build"):
        store.open_repository(tmp_path / "none")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SchemaError, match="must be empty or a store"):
        make_store(tmp_path)


def test_the_index_is_what_the_scenes_say(repo, location):
    scenes = [make_tiles("a-1", 4), make_tiles("b", 3, sensor="ahsi")]
    build(repo, scenes[0])
    extra = scenes[1].assign_coords(cloud=("tile", np.array([0.5, 0, 1], "f4")))
    build(repo, extra)
    table = read_index(store.open_version(location)).to_pydict()
    assert table["scene_id"] == ["a-1"] * 4 + ["b"] * 3
    assert table["tile_id"][:2] == ["a-1_r0_c0", "a-1_r0_c64"]
    assert table["sensor"] == ["hyperion"] * 4 + ["ahsi"] * 3
    assert table["position"] == [0, 1, 2, 3, 0, 1, 2]
    np.testing.assert_array_equal(table["cloud"], [np.nan] * 4 + [0.5, 0, 1])
    for name in ("row", "col", "lon", "lat", "split", "valid_fraction"):
        expected = np.concatenate([tiles[name].values for tiles in scenes])
        np.testing.assert_array_equal(np.array(table[name], expected.dtype), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign_attrs(scene_id="../x"), "scene_id"),
        (lambda t: t.assign_attrs(scene_id="E13.0"), "got .E13"),
        (lambda t: t.assign(tiles=t.tiles.astype("int32")), "int32"),
        (lambda t: t.isel(y=slice(60)), "64 x 64"),
        (lambda t: t.drop_vars("gain"), "gain"),
        (lambda t: t.drop_vars("lon"), "lon"),
        (lambda t: t.assign_coords(split=("tile", ["rest"] * 5)), "rest"),
        (lambda t: t.assign_attrs(sensor="modis"), "modis"),
        (lambda t: t.assign_attrs(counts={"in": 9, "kept": 5, "rejected": {}}), "reconcile"),
        (lambda t: t.assign_coords(col=t.col * 0), "same row and col"),
        (lambda t: t.drop_attrs(), "got None"),
    ],
)
def test_tiles_that_break_the_contract_are_refused(repo, change, message):
    session = store.begin(repo)
    with pytest.raises(SchemaError, match=message):
        store.write_scene(session.fork(), change(make_tiles()))


@pytest.mark.parametrize("seed", range(3))
def test_any_history_of_builds_and_rollbacks(repo, location, seed):
    rng = np.random.default_rng(seed)
    head, published = {}, {}
    for step in range(6):
        if published and rng.random() < 0.3:
            target = str(rng.choice(sorted(published)))
            store.rollback(repo, target)
            head = dict(published[target])
        names = [f"s{i}" for i in rng.choice(5, rng.integers(1, 3), replace=False)]
        new = {n: make_tiles(n, int(rng.integers(0, 4)), 1, seed=step) for n in names}
        head |= new
        assert build(repo, *new.values()).tag == f"v{step + 1}"
        published[f"v{step + 1}"] = dict(head)
        assert set(store.scenes(repo)) == set(head)
    for tag, scenes in published.items():
        group = store.open_version(location, tag)
        table = read_index(group).to_pylist()
        expected = {(n, i) for n, t in scenes.items() for i in range(t.sizes["tile"])}
        assert {(row["scene_id"], row["position"]) for row in table} == expected
        assert len(table) == len(expected)
        assert set(group["scenes"].group_keys()) == set(scenes)
        for name, tiles in scenes.items():
            np.testing.assert_array_equal(store.scene_dataset(group, name).tiles, tiles.tiles)


def test_diff_names_the_tiles_that_changed(repo):
    tiles = make_tiles("s1", 6)
    build(repo, tiles)
    other = tiles.copy(deep=True)
    other.tiles[2, 0, 5, 5] += 1
    other.valid[4, 0, 0] = ~other.valid[4, 0, 0]
    build(repo, other)
    change = store.diff(repo, "v1", "v2")
    assert change.scenes_changed == ("s1",)
    assert change.tiles_changed == ("s1_r0_c128", "s1_r64_c64")
    assert (change.tiles_added, change.tiles_removed) == ((), ())
