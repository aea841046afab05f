import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from storage.schema import SchemaError
from storage.stream import DamagedError, Stream, order, select
from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles

SCENES = {
    "h1": (30, 5, "hyperion", 0.0),
    "h2": (13, 5, "hyperion", 2.0),
    "a1": (11, 7, "ahsi", 5.0),
}


@pytest.fixture(scope="module")
def scenes():
    return {
        name: make_tiles(name, count, bands, sensor=sensor, shift=shift)
        for name, (count, bands, sensor, shift) in SCENES.items()
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory, scenes):
    folder = tmp_path_factory.mktemp("stream")
    return make_set(folder, *scenes.values())


def take(stream, count):
    return [next(stream) for _ in range(count)]


def epoch_ids(stream):
    return [name for batch in take(stream, stream.steps_per_epoch) for name in batch.tile_ids]


def assert_is_the_scenes_own(batch, shards, scenes):
    """Compare every sample with the scene that it was cut from, by NumPy indexing alone."""
    bands = batch.tiles.shape[1]
    for i, row in enumerate(batch.rows):
        record = shards.index.slice(row, 1).to_pylist()[0]
        tiles = scenes[record["scene_id"]]
        window = slice(batch.band_start[i], batch.band_start[i] + bands)
        np.testing.assert_array_equal(
            batch.tiles[i], tiles.tiles.values[record["position"], window]
        )
        np.testing.assert_array_equal(
            batch.wavelength[i], tiles.wavelength.values[window].astype("f4")
        )
        assert (batch.tile_ids[i], batch.sensor[i]) == (record["tile_id"], record["sensor"])


@pytest.mark.parametrize("seed", range(6))
def test_random_streams_agree_with_the_scenes(shards, scenes, seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(select(shards))[: rng.integers(20, 54)]
    batch_size, bands = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    with Stream(shards, rows, batch_size=batch_size, bands=bands, seed=seed) as stream:
        for batch in take(stream, 2 * stream.steps_per_epoch + 1):
            assert batch.tiles.shape == (batch_size, bands, 64, 64)
            assert (batch.tiles.dtype, batch.wavelength.dtype) == (np.int16, np.float32)
            assert set(batch.rows) <= set(rows)
            assert_is_the_scenes_own(batch, shards, scenes)


@pytest.mark.parametrize(("world", "batch_size"), [(1, 1), (1, 9), (2, 3), (3, 3), (4, 5)])
def test_an_epoch_gives_each_tile_once_over_all_ranks(shards, world, batch_size):
    rows = select(shards)
    streams = [
        Stream(shards, rows, batch_size=batch_size, bands=2, seed=3, rank=rank, world=world)
        for rank in range(world)
    ]
    first, second = ([n for s in streams for n in epoch_ids(s)] for _ in range(2))
    for ids in (first, second):
        assert len(set(ids)) == len(ids) == len(rows) // (world * batch_size) * world * batch_size
    assert first != second
    assert len({s.position for s in streams}) == 1


def test_ranks_interleave_in_the_global_order(shards):
    rows = select(shards)
    whole = rows[order(len(rows), 7, 0)]
    for rank in range(3):
        stream = Stream(shards, rows, batch_size=2, bands=1, seed=7, rank=rank, world=3)
        for batch in take(stream, 4):
            expected = whole[batch.position : batch.position + 6][rank::3]
            assert batch.rows.tolist() == expected.tolist()


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("steps", [0, 1, 5, 6, 8])
def test_resume_on_another_world_gives_the_same_remaining_tiles(shards, steps, world):
    rows = select(shards)[:48]
    before = [
        Stream(shards, rows, batch_size=4, bands=2, seed=1, rank=r, world=2) for r in range(2)
    ]
    for stream in before:
        take(stream, steps)
    state = before[0].state_dict()
    assert state == before[1].state_dict()
    remaining = {n for s in before for b in take(s, (6 - steps) % 6 or 6) for n in b.tile_ids}
    after = [
        Stream(shards, rows, batch_size=2, bands=2, seed=1, rank=r, world=world)
        for r in range(world)
    ]
    for stream in after:
        stream.load_state_dict(state)
    count = len(remaining) // (2 * world)
    assert {n for s in after for b in take(s, count) for n in b.tile_ids} == remaining


def test_resume_continues_batch_for_batch(shards):
    def make(**at):
        return Stream(shards, select(shards), batch_size=5, bands=3, seed=2, **at)

    whole = take(make(), 25)
    for stop in (1, 9, 10, 11, 20):
        stream = make()
        take(stream, stop)
        again = make(**stream.state_dict())
        for a, b in zip(take(again, 3), whole[stop:], strict=False):
            np.testing.assert_array_equal(a.tiles, b.tiles)
            np.testing.assert_array_equal(a.band_start, b.band_start)
            assert (a.epoch, a.position) == (b.epoch, b.position)


def test_windows_depend_on_seed_epoch_and_tile_alone(shards):
    def windows(**how):
        stream = Stream(shards, **{"rows": select(shards), "batch_size": 2, "bands": 2} | how)
        taken = take(stream, stream.steps_per_epoch)
        return {n: s for b in taken for n, s in zip(b.tile_ids, b.band_start.tolist(), strict=True)}

    base = windows(seed=0)
    part = windows(seed=0, rows=select(shards)[::-1][:20], batch_size=4)
    assert part.items() <= base.items()
    assert windows(seed=0, epoch=1) != base
    assert windows(seed=1) != base
    hyperion = {start for name, start in base.items() if name.startswith("h")}
    assert hyperion == {0, 1, 2, 3}


def test_windows_are_spread_evenly(shards):
    stream = Stream(shards, select(shards, sensor="ahsi"), batch_size=11, bands=3, seed=0)
    starts = np.concatenate([batch.band_start for batch in take(stream, 200)])
    counts = np.bincount(starts, minlength=5)
    # 2,200 draws of 5 places: 440 each, standard deviation 19; five of them are allowed.
    assert np.abs(counts - 440).max() < 95


def test_the_order_never_changes():
    assert sorted(order(1000, 5, 2)) == list(range(1000))
    assert order(8, 0, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert order(8, 0, 0).tolist() != order(8, 0, 1).tolist()


def test_only_the_windows_bytes_are_read(shards, monkeypatch):
    asked = []
    real = os.preadv

    def spy(file, buffers, offset):
        asked.append((offset, sum(map(len, buffers))))
        return real(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", spy)
    stream = Stream(shards, select(shards), batch_size=6, bands=2, seed=0)
    batch = next(stream)
    offset = shards.index["offset"].to_numpy()[batch.rows]
    assert asked == [
        (start + first * 64 * 64 * 2, 2 * 64 * 64 * 2)
        for start, first in zip(offset, batch.band_start, strict=True)
    ]


def test_bands_outside_the_window_may_be_garbage(tmp_path):
    shards = make_set(tmp_path, make_tiles("s", 6, bands=5))
    clean = next(Stream(shards, select(shards), batch_size=6, bands=2, seed=4))
    for row, first in zip(clean.rows.tolist(), clean.band_start.tolist(), strict=True):
        path = shards.root / shards.index["shard"][row].as_py()
        start = shards.index["offset"][row].as_py()
        data = bytearray(path.read_bytes())
        for band in set(range(5)) - {first, first + 1}:
            data[start + band * 8192 : start + (band + 1) * 8192] = b"\xff" * 8192
        path.write_bytes(data)
    again = next(Stream(shards, select(shards), batch_size=6, bands=2, seed=4))
    np.testing.assert_array_equal(again.tiles, clean.tiles)


def test_all_bands_of_one_sensor(shards, scenes):
    stream = Stream(shards, select(shards, sensor="ahsi"), batch_size=3, bands=None, seed=0)
    batch = next(stream)
    assert batch.tiles.shape[1] == 7
    assert not batch.band_start.any()
    assert_is_the_scenes_own(batch, shards, scenes)


def test_windows_that_do_not_fit_are_refused(shards):
    rows = select(shards)
    with pytest.raises(SchemaError, match="from 1 to 5, got 6"):
        Stream(shards, rows, batch_size=2, bands=6, seed=0)
    with pytest.raises(SchemaError, match="equally many bands"):
        Stream(shards, rows, batch_size=2, bands=None, seed=0)
    with pytest.raises(SchemaError, match="at least batch_size x world = 60 tiles, got 54"):
        Stream(shards, rows, batch_size=30, bands=2, seed=0, world=2)
    with pytest.raises(ValueError, match="rank"):
        Stream(shards, rows, batch_size=2, bands=2, seed=0, rank=2, world=2)


def test_a_shard_cut_short_while_reading_is_said_in_words(tmp_path):
    shards = make_set(tmp_path, make_tiles("s", 6))
    for entry in shards.manifest["shards"]:
        os.truncate(shards.root / entry["name"], 700)
    with pytest.raises(DamagedError, match="cut short"):
        next(Stream(shards, select(shards), batch_size=6, bands=4, seed=0, damaged=5))
    batch = next(Stream(shards, select(shards), batch_size=6, bands=4, seed=0, damaged=6))
    assert (batch.tiles.shape, batch.tile_ids, len(batch.damaged)) == ((0, 4, 64, 64), [], 6)


def test_few_files_are_open_at_once(shards, monkeypatch):
    monkeypatch.setattr("storage.ranges.OPEN_FILES", 2)
    stream = Stream(shards, select(shards), batch_size=6, bands=2, seed=0)
    take(stream, 9)
    assert open_files_below(shards.root) == 2
    stream.close()
    assert open_files_below(shards.root) == 0


def open_files_below(folder):
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    found = [str(os.readlink(link)) for link in links if link.is_symlink()]
    return sum(name.startswith(f"{folder}/") and name.endswith(".tar") for name in found)


def test_a_stream_travels_to_another_process(shards):
    stream = Stream(shards, select(shards), batch_size=6, bands=2, seed=0)
    next(stream)
    copy = pickle.loads(pickle.dumps(stream))  # noqa: S301
    np.testing.assert_array_equal(next(copy).tiles, next(stream).tiles)


@pytest.mark.parametrize("options", [{}, {"codec": "zstd"}, {"dtype": "float32"}])
def test_scaled_batches_are_physical_values_and_nan_without_a_measurement(tmp_path, options):
    scene = make_tiles("a", 12)
    scene.tiles[3, 1, 5, 6] = -32767
    shards = make_set(tmp_path, scene, **options)
    how = {"batch_size": 4, "bands": 3, "seed": 5}
    plain, scaled = (Stream(shards, select(shards), **how, scaled=one) for one in (False, True))
    gaps = 0
    for _ in range(plain.steps_per_epoch):
        stored, found = next(plain), next(scaled)
        assert found.tiles.dtype == scaled.dtype == np.float32
        assert found.tile_ids == stored.tile_ids
        expected = stored.tiles / np.float32(4000)
        if stored.tiles.dtype == np.int16:
            nothing = (stored.tiles == 0) | (stored.tiles == -32767)
            gaps += nothing.sum()
            expected[nothing] = np.nan
        np.testing.assert_allclose(found.tiles, expected, rtol=1e-6)
    assert gaps > 3 or "dtype" in options


def test_a_batch_that_is_held_keeps_its_pixels(tmp_path):
    shards = make_set(tmp_path, make_tiles("a", 12))
    batches = Stream(shards, select(shards), batch_size=4, bands=2, seed=5)
    held, copies = [], []
    for _ in range(6):
        batch = next(batches)
        held.append(batch.tiles[1:, :, 3])
        copies.append(batch.tiles[1:, :, 3].copy())
    np.testing.assert_array_equal(held, copies)
