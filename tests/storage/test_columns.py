import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from storage import store
from storage.columns import read_checksums, read_columns, write_columns
from storage.index import read_index
from storage.nodes import write_column
from storage.schema import FOOTPRINT_COORDS, SchemaError
from storage.statistics import read_statistics
from tests.storage.tiles import build, make_tiles

SIDE_BY_SIDE = {"measures": "tile", "digests": "tile", "calibration": "band"}


def write_as_before(repo, tiles):
    """Publish a scene as stores had it before columns lay side by side: an array a column."""
    fork = store.begin(repo).fork()
    store.write_scene(fork, tiles)
    name = tiles.attrs["scene_id"]
    scene = zarr.open_group(fork.store, mode="r+")[f"scenes/{name}"]
    for table, dim in SIDE_BY_SIDE.items():
        columns = read_columns(scene, dim)
        names = scene[table].attrs["columns"]
        del scene[table]
        for each in names:
            write_column(scene, each, columns[each], dim)
    sketch = scene["sketch"]
    first, (moments, counts) = sketch.attrs["first_bin"], np.split(sketch[:], [3], axis=2)
    del scene["sketch"]
    dims = {"dimension_names": ("part", "band", "number")}
    counts = counts.astype("u4")
    scene.create_array("sketch", data=counts, attributes={"first_bin": first}, **dims)
    scene.create_array("moments", data=moments, **dims)
    return store.commit_version(repo, {name: fork}, code_version="0")


def test_a_scene_has_few_arrays(repo, location):
    tiles = make_tiles("s1", 6)
    more = {f"{name}_fraction": ("tile", np.full(6, 0.5, "f4")) for name in ("snow", "cloud")}
    build(repo, tiles.assign_coords(more))
    names = set(store.open_version(location)["scenes/s1"].array_keys())
    assert names == {
        "tiles", "valid", "band", "wavelength", "fwhm", "row", "col", "lon", "lat", "split",
        "tile_id", "sketch", *SIDE_BY_SIDE,
    }  # fmt: skip


def test_a_plain_reader_finds_the_columns_by_their_names(repo, location):
    tiles = make_tiles("s1", 6)
    build(repo, tiles)
    plain = xr.open_zarr(
        store.open_version(location).store, group="scenes/s1", consolidated=False, chunks=None
    )
    measures = plain.measures.assign_coords(measure=plain.measures.columns)
    for name in ("valid_fraction", *FOOTPRINT_COORDS):
        np.testing.assert_array_equal(measures.sel(measure=name), tiles[name])
    calibration = plain.calibration.assign_coords(term=plain.calibration.columns)
    np.testing.assert_array_equal(calibration.sel(term="gain"), tiles.gain)
    numbers = calibration.sel(term="detector").values.astype(int)
    named = np.array(calibration.labels["detector"])[numbers]
    np.testing.assert_array_equal(named, tiles.detector)


@pytest.mark.parametrize("count", [0, 7])
def test_a_scene_of_before_reads_the_same(repo, location, count):
    tiles = make_tiles("s1", count)
    write_as_before(repo, tiles)
    build(repo, make_tiles("s1", count).assign_attrs(platform="y"))  # the same scene, as it is now
    before, now = (store.open_version(location, tag) for tag in ("v1", "v2"))
    assert "gain" in before["scenes/s1"]
    assert "gain" not in now["scenes/s1"]
    old, new = (store.scene_dataset(group, "s1") for group in (before, now))
    xr.testing.assert_identical(old.drop_attrs(), new.drop_attrs())
    for name, column in read_index(before).to_pydict().items():
        np.testing.assert_array_equal(column, read_index(now)[name].to_pylist())
    assert store.diff(repo, "v1", "v2") == store.Diff((), (), (), (), (), ())
    sums = [read_checksums(group["scenes/s1"]) for group in (before, now)]
    np.testing.assert_array_equal(*sums)
    means = [read_statistics(group, split="all")["hyperion"].mean for group in (before, now)]
    np.testing.assert_array_equal(*means)


def test_scenes_of_before_and_of_now_lie_in_one_version(repo, location):
    old, new = make_tiles("a", 5), make_tiles("b", 4)
    write_as_before(repo, old)
    build(repo, new)
    group = store.open_version(location)
    table = read_index(group)
    for name in ("valid_fraction", "down_north", "row"):
        expected = np.concatenate([old[name], new[name]])
        np.testing.assert_array_equal(table[name].to_numpy(), expected)
    assert 0 not in table["pattern"].to_pylist()
    build(repo, make_tiles("a", 5, seed=1))
    assert set(store.diff(repo, "v2", "v3").scenes_changed) == {"a"}
    np.testing.assert_array_equal(store.scene_dataset(group, "a").tiles, old.tiles)


def test_numbers_and_text_come_back_in_their_places():
    group = zarr.create_group(MemoryStore())
    columns = {
        "band": np.arange(3, dtype="i4"),
        "offset": np.array([0.1, np.nan, -5.0]),
        "detector": np.array(["SWIR", "VNIR", "SWIR"]),
    }
    write_columns(group, "band", columns)
    found = read_columns(group, "band")
    assert set(found) == set(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)
    assert found["band"].dtype == np.int32
    assert read_columns(group, "tile") == {}
    assert read_checksums(group) is None


def test_a_whole_number_that_would_be_another_is_refused():
    group = zarr.open_group(MemoryStore(), mode="w")
    write_columns(group, "tile", {"count": np.array([2**24, 3], "i8")})
    with pytest.raises(SchemaError, match="column number: expected whole numbers that float32"):
        write_columns(group, "tile", {"number": np.array([2**24 + 1], "i8")})
