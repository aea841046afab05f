"""Maps by strips: the numbers of the whole image at once, from anywhere on, and whole files."""

import functools

import numpy as np
import pytest
import rasterio
import torch
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from hypersigma.cubes.cube import new_cube
from hypersigma.mapping.cog import Layer, thinned, write_cog
from hypersigma.mapping.rows import Rows
from hypersigma.mapping.sources import CubeSource, PairSource, RasterSource, kind_of
from hypersigma.mapping.strips import Windows, strips
from hypersigma.tasks.dense import blended
from tests.hypersigma.runs.conftest import RPC as RPC_NUMBERS

GRID = from_origin(500000, 5600000, 30, 30)


def cube(height, width, bands=5, **known):
    x = np.random.default_rng(0).integers(1, 1000, (height, width, bands)).astype(np.int16)
    return new_cube(x, **known)


def run(x_BCww):
    """Answers that depend on a window as a whole."""
    return torch.cat(
        (x_BCww[:, :2] - x_BCww.mean((1, 2, 3), keepdim=True)[:, :1], x_BCww[:, 2:3]), 1
    )


@pytest.mark.parametrize(("height", "width"), [(40, 33), (16, 16), (5, 70), (9, 7), (64, 48)])
@pytest.mark.parametrize("overlap", [0, 4, 8])
def test_strips_are_the_whole_image_bit_by_bit(height, width, overlap):
    source = CubeSource(cube(height, width))
    windows = Windows(16, overlap, batch_size=3)
    opened = functools.partial(lambda: (run, source))
    found = list(strips(opened, windows))
    whole = blended(run, torch.from_numpy(source.rows(0, height)[0]), window=16, overlap=overlap,
                    batch_size=3).numpy()  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([a for a, _ in found], 1), whole)
    assert np.concatenate([valid for _, valid in found]).shape == (height, width)
    for first in range(len(found)):
        later = list(strips(opened, windows, first=first))
        assert len(later) == len(found) - first
        for (a, valid), (b, known) in zip(later, found[first:], strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(valid, known)


def tiny():
    """Return what a worker opens."""
    return run, CubeSource(cube(70, 33))


@pytest.mark.soak  # `test_scenes` has another in `make test`
def test_workers_say_the_same_bit_by_bit():
    windows = Windows(16, 8, batch_size=3)
    alone, together = (list(strips(tiny, windows, workers=n, first=2)) for n in (0, 2))
    assert len(alone) == len(together) == len(windows.rows(70)) - 2
    for (a, valid), (b, known) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(valid, known)


def test_a_raster_is_read_as_a_cube_is(tmp_path):
    held = cube(50, 40, wavelength=np.linspace(400, 2400, 5))
    held.x_HWC[3, 4] = -9999
    held.x_HWC[:, :2] = 0
    path = tmp_path / "image.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=5, height=50, width=40, dtype="int16", nodata=-9999,
        crs="EPSG:32633", transform=GRID,
    ) as file:  # fmt: skip
        file.write(held.x_HWC.transpose(2, 0, 1))
        for band in range(1, 6):
            file.update_tags(band, wavelength=held.wavelength[band - 1])
    source = RasterSource(path, scale=1000)
    assert (source.height, source.width, source.bands) == (50, 40, 5)
    assert source.wavelength == pytest.approx(held.wavelength)
    assert source.placed == {"crs": rasterio.crs.CRS.from_epsg(32633), "transform": GRID}
    found, valid = source.rows(2, 11)
    assert not valid[1, 4]
    assert not valid[:, :2].any()
    assert valid.sum() == 9 * 38 - 1
    expected = held.x_HWC[2:11].transpose(2, 0, 1).astype("f4") / np.float32(1000)
    np.testing.assert_array_equal(found, np.where(valid, expected, np.nan))


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.tif: expected an image"):
        RasterSource(tmp_path / "a.tif")


def appended(path, identity, count):
    rng = np.random.default_rng(1)
    with Rows(path, identity) as rows:
        for _ in range(count):
            rows.append(rng.normal(size=(3, 4, 7)).astype("f4"), rng.random((4, 7)) > 0.5)
        return rows.read(0, rows.count)


def test_rows_go_on_behind_those_that_are_safe(tmp_path):
    path = tmp_path / "a.rows"
    answers, valid = appended(path, {"scene": 1}, 3)
    with path.open("ab") as file:
        file.write(b"half a strip")  # of a process that was killed
    with Rows(path, {"scene": 1}) as rows:
        assert (rows.count, rows.strips) == (12, 3)
        np.testing.assert_array_equal(rows.read(2, 9)[0], answers[:, 2:9])
        np.testing.assert_array_equal(rows.read(2, 9)[1], valid[2:9])
        rows.append(np.ones((3, 4, 7), "f4"), np.ones((4, 7), bool))
        assert rows.read(12, 16)[0].min() == 1
        rows.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["identity", "lost", "torn note"])
def test_other_or_damaged_rows_are_thrown_away(tmp_path, change):
    path = tmp_path / "a.rows"
    appended(path, {"scene": 1}, 3)
    if change == "lost":
        path.write_bytes(path.read_bytes()[:-4])
    elif change == "torn note":
        path.with_suffix(".json").write_text("{")
    with Rows(path, {"scene": 2 if change == "identity" else 1}) as rows:
        assert (rows.count, rows.strips) == (0, 0)


@pytest.mark.parametrize(
    "placed", [{"crs": "EPSG:32633", "transform": GRID}, {"rpcs": RPC(**RPC_NUMBERS)}, {}]
)
def test_a_map_is_a_cog_with_the_scenes_georeference(tmp_path, placed):
    numbers = np.random.default_rng(0).integers(0, 3, (1, 600, 300)).astype("u1")
    colours = {0: (0, 0, 0, 0), 1: (9, 8, 7, 255), 2: (1, 2, 3, 255)}
    layer = Layer("uint8", 0, ["class"], colours, {"scene_id": "a"}, [{"class_1": "water"}])
    paths = [tmp_path / name for name in ("a.tif", "b.tif")]
    for path in paths:
        write_cog(path, lambda first, last: numbers[:, first:last], height=600, width=300,
                  placed=placed, layer=layer)  # fmt: skip
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]
    with rasterio.open(paths[0]) as file:
        np.testing.assert_array_equal(file.read(), numbers)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4]
        assert (file.nodata, file.descriptions) == (0, ("class",))
        assert file.colormap(1)[1] == (9, 8, 7, 255)
        assert (file.tags()["scene_id"], file.tags(1)["class_1"]) == ("a", "water")
        if "transform" in placed:
            assert (file.transform, file.crs.to_epsg()) == (GRID, 32633)
        assert file.rpcs == placed.get("rpcs")


def test_a_map_that_fails_leaves_nothing(tmp_path):
    def read(first, last):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_cog(tmp_path / "a.tif", read, height=9, width=9, placed={},
                  layer=Layer("float32", float("nan"), ["a"]))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_preview_is_of_every_so_many():
    numbers = np.arange(2 * 7 * 9).reshape(2, 7, 9)
    found = thinned(lambda first, last: numbers[:, first:last], 7, 3)
    np.testing.assert_array_equal(found, numbers[:, ::3, ::3])


def test_two_dates_are_one_image_where_both_are_valid():
    placed = {"crs": "EPSG:32633", "transform": tuple(GRID)[:6]}
    before, after = (cube(9, 7, **placed) for _ in range(2))
    after.x_HWC[:] += 1
    after.valid_HW[2, 3] = False
    pair = PairSource(CubeSource(before), CubeSource(after))
    found, valid = pair.rows(1, 5)
    assert found.shape == (10, 4, 7)
    assert valid.sum() == 27
    np.testing.assert_array_equal((found[5:] - found[:5])[:, valid], 1)
    assert pair.placed["transform"] == GRID
    with pytest.raises(ValueError, match="two dates of one grid and the same bands, got size"):
        PairSource(CubeSource(before), CubeSource(cube(8, 7, **placed)))


def write_plain(path, **placed):
    """Write a raster of two bands at 0.45 and 0.9 um."""
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=4, width=5, dtype="uint8", **placed
    ) as file:
        file.write(np.ones((2, 4, 5), "u1"))
        for band, wavelength in enumerate((0.45, 0.9), start=1):
            file.update_tags(band, wavelength=wavelength)


def test_micrometres_are_nanometres(tmp_path):
    write_plain(tmp_path / "a.tif", crs="EPSG:32633", transform=GRID)
    assert RasterSource(tmp_path / "a.tif").wavelength == pytest.approx((450, 900))


def test_a_grid_counts_more_than_polynomials(tmp_path):
    write_plain(tmp_path / "a.tif", crs="EPSG:32633", transform=GRID, rpcs=RPC(**RPC_NUMBERS))
    assert RasterSource(tmp_path / "a.tif").placed["transform"] == GRID


def test_dates_with_the_same_ground_points_are_of_one_grid(tmp_path):
    points = [
        GroundControlPoint(row=row, col=col, x=10 + col, y=50 - row)
        for row in (0, 3) for col in (0, 4)
    ]  # fmt: skip
    for name in ("a.tif", "b.tif"):
        write_plain(tmp_path / name, gcps=points, crs="EPSG:4326")
    pair = PairSource(*(RasterSource(tmp_path / name) for name in ("a.tif", "b.tif")))
    assert kind_of(pair.placed) == "gcp"
