"""What a set of many tiles costs a process: mapped tables, small pickles."""

import json
import multiprocessing
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.nearby import mapped_table
from storage.schema import SchemaError
from storage.sequence import packed, unpacked
from storage.stream import Stream, open_shards, select
from tests.storage.sets import make_large_set, make_set
from tests.storage.tiles import make_tiles

TILES, BANDS = 300_000, 2


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERSIGMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def large(tmp_path):
    """A set of 300,000 tiles of zeros."""
    return make_large_set(tmp_path / "large", TILES, BANDS)


def private_bytes():
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+) kB", text))


def work(data, pipe):
    """Run in a spawned process: go through some batches, and tell what they cost."""
    import storage.stream  # noqa: F401  # its own memory is not what is measured

    before = private_bytes()
    stream = pickle.loads(data)  # noqa: S301
    given = [name for _ in range(20) for name in next(stream).tile_ids]
    pipe.send((private_bytes() - before, given))


def test_a_stream_goes_to_workers_without_its_index(large):
    shards = open_shards(large)
    stream = Stream(shards, select(shards, sensor="ahsi"), batch_size=8, bands=1, seed=0)
    data = pickle.dumps(stream)
    assert len(data) < 100_000
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(2):
        here, there = context.Pipe()
        process = context.Process(target=work, args=(data, there))
        process.start()
        there.close()
        found.append(here.recv())
        process.join()
        here.close()
    expected = [name for _ in range(20) for name in next(stream).tile_ids]
    assert [given for _, given in found] == [expected, expected]
    # The table alone has 40 MB, and what is read and drawn a few.
    assert shards.index.nbytes > 35e6
    assert max(cost for cost, _ in found) < 30e6


def test_a_long_table_is_the_file_and_no_copy(large):
    before = private_bytes()
    table = open_shards(large).index
    before_second = private_bytes()
    again = open_shards(large).index
    assert private_bytes() - before_second < 5e6
    assert before_second - before < 300e6
    assert table.equals(pq.read_table(large / "index.parquet"))
    assert again.equals(table)
    assert pa.total_allocated_bytes() < table.nbytes / 2


def test_a_table_that_was_half_unpacked_is_made_again(tmp_path, large, monkeypatch):
    entry = json.loads((large / "manifest.json").read_text())["index"]

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("storage.nearby.os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            mapped_table(large / "index.parquet", entry["sha256"])
    names = [path.name for path in (tmp_path / "cache" / "tables").iterdir()]
    assert [name for name in names if not name.endswith(".lock")] == []
    assert len(mapped_table(large / "index.parquet", entry["sha256"])) == TILES


def test_tables_that_nobody_asked_for_in_a_month_go(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.nearby.MAPPED_ROWS", 1)
    file, tables = tmp_path / "index.parquet", tmp_path / "cache/tables"
    pq.write_table(pa.table({"row": [1, 2, 3]}), file)
    old = {name: mapped_table(file, name) for name in ("asked", "forgotten")}
    for name in old:
        os.utime(tables / f"{name}.arrow", (0, 0))
    mapped_table(file, "asked")
    mapped_table(file, "new")
    assert {path.name for path in tables.glob("*.arrow")} == {"asked.arrow", "new.arrow"}
    assert old["forgotten"]["row"].to_pylist() == [1, 2, 3]  # still mapped


def test_a_set_that_was_written_anew_meanwhile_is_refused(tmp_path):
    shards = make_set(tmp_path, make_tiles("s", 6))
    data = pickle.dumps(shards)
    assert pickle.loads(data).index["tile_id"] == shards.index["tile_id"]  # noqa: S301
    manifest = shards.root / "manifest.json"
    text = manifest.read_text().replace(shards.manifest["index"]["sha256"], "0" * 64)
    manifest.write_text(text)
    with pytest.raises(SchemaError, match="must be the set that was opened"):
        pickle.loads(data)  # noqa: S301


@pytest.mark.parametrize("seed", range(5))
def test_rows_come_out_as_they_went_in(seed):
    rng = np.random.default_rng(seed)
    some = np.flatnonzero(rng.random(300_000) < 0.3)
    mixed = rng.permutation(1000), rng.integers(0, 2**40, 50)
    for rows in (np.arange(5), np.empty(0, np.int64), some, *mixed):
        np.testing.assert_array_equal(unpacked(packed(rows)), rows)
        assert unpacked(packed(rows)).dtype == np.int64
    assert len(packed(some)) < 70_000
    assert len(packed(np.arange(300_000))) < 20_000
