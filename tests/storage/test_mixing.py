"""Streams over several sets, in the order of shards, with padding, with masks."""

import itertools
from collections import Counter

import numpy as np
import pytest

from storage.schema import SchemaError
from storage.stream import Stream, select
from tests.storage.sets import make_set
from tests.storage.tiles import make_tiles


@pytest.fixture(scope="module")
def scenes():
    return {name: make_tiles(name, count) for name, count in (("a", 30), ("b", 13), ("c", 9))}


@pytest.fixture(scope="module")
def sets(tmp_path_factory, scenes):
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    return (
        make_set(first, scenes["a"], scenes["b"], tiles_per_shard=4),
        make_set(second, scenes["c"], tiles_per_shard=4),
    )


def mixed(sets, **more):
    how = {"batch_size": 4, "bands": 2, "seed": 3} | more
    return Stream(sets, [select(one) for one in sets], **how)


def take(batches, count):
    return [next(batches) for _ in range(count)]


def check_pixels(batch, sets, scenes):
    for place, (number, row) in enumerate(zip(batch.source, batch.rows, strict=True)):
        record = sets[number].index.slice(row, 1).to_pylist()[0]
        truth = scenes[record["scene_id"]].isel(tile=record["position"])
        start = batch.band_start[place]
        np.testing.assert_array_equal(batch.tiles[place], truth.tiles.values[start : start + 2])
        if batch.valid is not None:
            np.testing.assert_array_equal(batch.valid[place], truth.valid.values)
        assert batch.tile_ids[place] == record["tile_id"]


def ids(batches):
    return [
        name
        for batch in batches
        for name, extra in zip(batch.tile_ids, batch.padding.tolist(), strict=True)
        if not extra
    ]


@pytest.mark.parametrize("order", ["global", "shard"])
def test_two_sets_give_each_tile_once_an_epoch_with_its_own_pixels(sets, scenes, order):
    stream = mixed(sets, order=order, window=2, valid=True, ends="pad")
    assert stream.steps_per_epoch == 13
    for _ in range(2):
        batches = take(stream, 13)
        for batch in batches:
            check_pixels(batch, sets, scenes)
            assert batch.valid.dtype == bool
        everything = [n for one in sets for n in one.index["tile_id"].to_pylist()]
        assert sorted(ids(batches)) == sorted(everything)


def test_with_weights_a_set_comes_as_often_as_it_is_to(sets, scenes):
    stream = mixed(sets, weights=[1, 1], batch_size=13)
    batches = take(stream, 4 * 9)
    counts = Counter(np.concatenate([batch.source for batch in batches]).tolist())
    assert counts == {0: 26 * 9, 1: 26 * 9}
    for batch in batches:
        check_pixels(batch, sets, scenes)
    # The small one, of 9 tiles, went through 26 passes of its own, with new windows in each.
    seen = Counter(
        name
        for batch in batches
        for name, source in zip(batch.tile_ids, batch.source, strict=True)
        if source == 1
    )
    assert set(seen.values()) == {26}
    starts = {
        (name, int(start))
        for batch in batches
        for name, start in zip(batch.tile_ids, batch.band_start, strict=True)
        if name.startswith("c")
    }
    assert len(starts) == 9 * 3


def test_in_the_order_of_shards_few_are_open_at_a_time(sets):
    one = sets[0]
    stream = Stream(one, select(one), batch_size=1, bands=2, seed=3, order="shard", window=3)
    batches = take(stream, 43)
    shard = [one.index["shard"][int(batch.rows[0])].as_py() for batch in batches]
    first, last = {}, {}
    for place, name in enumerate(shard):
        first.setdefault(name, place)
        last[name] = place
    at_once = [sum(first[n] <= p <= last[n] for n in first) for p in range(43)]
    assert max(at_once) <= 3
    assert len({batch.tile_ids[0] for batch in batches}) == 43
    # ... and mixed: neighbours are seldom of one shard.
    assert sum(a != b for a, b in itertools.pairwise(shard)) > 20


@pytest.mark.parametrize("world", [1, 3])
def test_padding_completes_the_last_step_and_is_marked(sets, world):
    one = sets[0]
    how = {"batch_size": 5, "bands": 2, "seed": 3, "ends": "pad", "world": world}
    streams = [Stream(one, select(one), rank=rank, **how) for rank in range(world)]
    steps = -(-43 // (5 * world))
    assert {stream.steps_per_epoch for stream in streams} == {steps}
    batches = [take(stream, steps) for stream in streams]
    assert sorted(n for own in batches for n in ids(own)) == sorted(
        one.index["tile_id"].to_pylist()
    )
    extra = [int(batch.padding.sum()) for own in batches for batch in own]
    assert sum(extra) == steps * 5 * world - 43
    assert all(len(batch.tiles) == 5 for own in batches for batch in own)
    assert [own[-1].after for own in batches] == [
        {"epoch": 0, "position": steps * 5 * world}
    ] * world
    assert {next(stream).epoch for stream in streams} == {1}


def test_a_mixed_stream_goes_on_anywhere(sets):
    how = {"weights": [2, 1], "order": "shard", "window": 2, "ends": "pad", "valid": True}
    whole = take(mixed(sets, **how), 30)
    for stop in (1, 12, 13, 20):
        again = mixed(sets, **how)
        again.load_state_dict(whole[stop - 1].after)
        for got, expected in zip(take(again, 5), whole[stop:], strict=False):
            np.testing.assert_array_equal(got.tiles, expected.tiles)
            np.testing.assert_array_equal(got.valid, expected.valid)
            assert got.tile_ids == expected.tile_ids


def test_what_cannot_be_mixed_is_refused(sets, tmp_path):
    wide = make_set(tmp_path, make_tiles("w", 5, bands=7))
    with pytest.raises(SchemaError, match="same bands of a sensor, got 4 and 7 of hyperion"):
        mixed([*sets, wide])
    with pytest.raises(ValueError, match="rows of each of 2 sets, got 1"):
        Stream(sets, [select(sets[0])], batch_size=2, bands=2, seed=0)
    with pytest.raises(ValueError, match=r"masks were not asked for"):
        mixed(sets)._windows[0].masks(np.array([0]))
