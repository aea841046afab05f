"""Tiles that are not what they were: left out, counted, told; and no others."""

import numpy as np
import pytest

from storage.stream import DamagedError, Stream, open_shards, read_tile, select
from tests.storage.sets import damage, make_set
from tests.storage.tiles import make_tiles


@pytest.fixture
def tiles():
    return make_tiles("a", 12, bands=5)


def stream(shards, **more):
    return Stream(shards, select(shards), **{"batch_size": 6, "bands": 2, "seed": 1} | more)


def take(batches, count):
    return [next(batches) for _ in range(count)]


def name(shards, row):
    return shards.index["tile_id"][row].as_py()


def test_a_flipped_byte_in_a_window_leaves_that_tile_out(tmp_path, tiles, caplog):
    shards = make_set(tmp_path, tiles)
    clean = take(stream(shards), 2)
    row, start = int(clean[0].rows[4]), int(clean[0].band_start[4])
    damage(shards, row, at=start * 8192 + 8191, count=1)
    found = stream(shards)
    first, second = take(found, 2)
    assert first.damaged == (name(shards, row),)
    assert found.skipped == [name(shards, row)]
    keep = [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(first.tiles, clean[0].tiles[keep])
    np.testing.assert_array_equal(first.wavelength, clean[0].wavelength[keep])
    assert first.tile_ids == [clean[0].tile_ids[place] for place in keep]
    assert first.rows.tolist() == clean[0].rows[keep].tolist()
    assert (first.after, second.tile_ids) == (clean[0].after, clean[1].tile_ids)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name(shards, row)} is left out: ")
    assert f"band {start}" in record.getMessage() or f"band {start + 1}" in record.getMessage()


def test_the_same_without_checksums_is_not_seen(tmp_path, tiles):
    shards = make_set(tmp_path, tiles)
    damage(shards, 0, at=0, count=5 * 8192)
    assert not [batch for batch in take(stream(shards, verify=False), 2) if batch.damaged]
    assert sum(len(batch.damaged) for batch in take(stream(shards), 2)) == 1


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_bytes_beside_the_window_do_not_matter(tmp_path, tiles, bands):
    shards = make_set(tmp_path, tiles)
    clean = take(stream(shards, bands=bands), 2)
    for batch in clean:
        for row, start in zip(batch.rows.tolist(), batch.band_start.tolist(), strict=True):
            damage(shards, row, at=-60, count=60)
            for band in set(range(5)) - set(range(start, start + bands)):
                damage(shards, row, at=band * 8192, count=8192)
    for got, plain in zip(take(stream(shards, bands=bands), 2), clean, strict=True):
        assert got.damaged == ()
        np.testing.assert_array_equal(got.tiles, plain.tiles)


def test_more_than_may_be_ends_it_with_the_reason(tmp_path, tiles):
    shards = make_set(tmp_path, tiles)
    for row in (2, 5, 7):
        damage(shards, row, at=0, count=5 * 8192)
    assert len({n for b in take(stream(shards, damaged=3), 2) for n in b.damaged}) == 3
    with pytest.raises(DamagedError, match=r"expected at most 2.*must have the checksum"):
        take(stream(shards, damaged=2), 2)
    with pytest.raises(DamagedError, match=name(shards, 5)):
        read_tile(shards, 5)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_of_a_compressed_tile_the_whole_frame_is_checked(tmp_path, tiles, codec):
    (tmp_path / "plain").mkdir()
    plain = take(stream(make_set(tmp_path / "plain", tiles)), 4)
    shards = make_set(tmp_path, tiles, codec=codec)
    for got, expected in zip(take(stream(shards), 4), plain, strict=True):
        np.testing.assert_array_equal(got.tiles, expected.tiles)
    length = shards.index["length"].to_numpy()
    for row, at in ((0, 0), (3, int(length[3]) // 2), (4, int(length[4]) - 1)):
        damage(shards, row, at=at, count=1)
    for verify in (True, False):
        found = stream(shards, verify=verify)
        for got, expected in zip(take(found, 2), plain, strict=False):
            lost = {name(shards, row) for row in (0, 3, 4)} & set(expected.tile_ids)
            if verify:
                assert set(got.damaged) == lost
            keep = [n not in got.damaged for n in expected.tile_ids]
            assert got.tile_ids == [n for n in expected.tile_ids if n not in got.damaged]
            if verify:
                np.testing.assert_array_equal(got.tiles, expected.tiles[keep])


def test_a_shard_that_is_gone_loses_its_own_tiles_alone(tmp_path, tiles):
    shards = make_set(tmp_path, tiles, tiles_per_shard=2)
    gone = shards.manifest["shards"][0]["name"]
    (shards.root / gone).unlink()
    batches = take(stream(shards), 2)
    index = shards.index.to_pylist()
    expected = {row["tile_id"] for row in index if row["shard"] == gone}
    assert {n for batch in batches for n in batch.damaged} == expected
    with pytest.raises(Exception, match="got no file"):
        open_shards(shards.root)
