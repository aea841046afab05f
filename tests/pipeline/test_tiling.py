import json

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.warp import transform

from pipeline.geolocation import lonlat
from pipeline.readers.metadata import parse_rpb
from pipeline.steps.masks import mask
from pipeline.tiling import tile
from pipeline.windows import windows
from storage.scenes import kept_tiles
from storage.schema import SceneError, SchemaError
from tests.pipeline.raw_products import rpb_text, write_tif

MAP = {"crs": "EPSG:32633", "transform": [30.0, 0.0, 362175.0, 0.0, -30.0, 5809965.0]}


def to_train(lon, lat):
    return np.full(len(lon), "train")


def kept(scene, *args, **rules):
    return kept_tiles(tile(scene, *args, **rules))


def make_scene(dn, valid=None, *, name="dn", chunk=64, **attrs):
    dims = ("band", "y", "x")
    valid = np.ones(dn.shape[1:], bool) if valid is None else valid
    data = da.from_array(dn, chunks=(-1, chunk, -1))
    return xr.Dataset(
        {
            name: (dims, data),
            "valid": (("y", "x"), da.from_array(valid, chunks=(chunk, -1))),
            "dead": (dims, da.zeros(dn.shape, dtype=bool, chunks=data.chunks)),
        },
        {"band": np.arange(1, len(dn) + 1), "gain": ("band", np.ones(len(dn)))},
        {"scene_id": "S", "steps": [], **MAP, **attrs},
    )


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(-200, 5000, (3, 200, 150)).astype("int16")


def test_tiles_are_the_windows_of_the_scene(dn):
    out = kept(make_scene(dn), to_train)
    corners = [(r, c) for r in (0, 64, 128) for c in (0, 64)]
    assert list(zip(out.row.values, out.col.values, strict=True)) == corners
    for image, (row, col) in zip(out.tiles.values, corners, strict=True):
        np.testing.assert_array_equal(image, dn[:, row : row + 64, col : col + 64])
    assert (out.tiles.dims, out.tiles.dtype) == (("tile", "band", "y", "x"), "int16")
    assert out.attrs["counts"] == {"in": 6, "kept": 6, "rejected": {}}
    assert out.attrs["units"] == "DN"
    json.dumps(out.attrs)


@pytest.mark.parametrize("chunk", [20, 32, 64, 100, 128, 192])
def test_another_stride_crosses_chunks(dn, chunk):
    out = kept(make_scene(dn, chunk=chunk), to_train, stride=40)
    assert out.sizes["tile"] == 4 * 3
    for image, row, col in zip(out.tiles.values, out.row.values, out.col.values, strict=True):
        np.testing.assert_array_equal(image, dn[:, row : row + 64, col : col + 64])


def test_pixels_stay_lazy_and_each_strip_is_one_chunk(dn):
    reads = []

    def read(block):
        reads.append(block.shape)
        return block

    scene = make_scene(dn, sensor="hyperion", nodata=0).assign_coords(band=[8, 9, 10])
    lazy = scene.dn.data.map_blocks(read, dtype=dn.dtype, meta=np.empty((0, 0, 0), "i2"))
    scene = scene.drop_vars(["valid", "dead"]).assign(dn=(scene.dn.dims, lazy))
    out = tile(mask(scene), to_train)
    assert reads == []
    assert out.tiles.chunks[0] == (2, 2, 2)
    # Pixels, masks, quality and fate out of one pass
    with dask.config.set(scheduler="sync"):
        kept_tiles(out)
    assert sorted(reads) == [(3, 8, 150)] + [(3, 64, 150)] * 3


def test_keep_rule_counts_by_the_first_reason(dn):
    valid = np.ones((200, 150), bool)
    valid[:64, :64].ravel()[:410] = False  # a view of the rows would not be flat
    valid[0:64, 0:64] = True
    valid[:7, :64] = False  # 7 of 64 rows: 0.890625 is left
    valid[64:70, :64] = False  # 6 of 64 rows: 0.90625 is left
    valid[128:, 64:] = False

    def two(lon, lat):
        return np.array(["train", "val", "", "test", "", "test"])

    out = kept(make_scene(dn, valid), two, min_valid=0.9)
    assert out.attrs["counts"] == {
        "in": 6, "kept": 2, "rejected": {"nodata": 2, "split_border": 2},
    }  # fmt: skip
    assert list(zip(out.row.values, out.col.values, strict=True)) == [(0, 64), (64, 64)]
    assert out.split.values.tolist() == ["val", "test"]
    kept_all = kept(make_scene(dn, valid), to_train, min_valid=0.01)
    fractions = [valid[r : r + 64, c : c + 64].mean() for r in (0, 64, 128) for c in (0, 64)][:5]
    np.testing.assert_allclose(kept_all.valid_fraction, fractions)
    np.testing.assert_array_equal(kept_all.valid.values[2], valid[64:128, :64])


def test_a_scene_smaller_than_a_tile_has_none(dn):
    out = kept(make_scene(dn[:, :63]), to_train)
    assert out.tiles.shape == (0, 3, 64, 64)
    assert out.valid.shape == (0, 64, 64)
    assert out.attrs["counts"] == {"in": 0, "kept": 0, "rejected": {}}


def test_a_scene_of_many_bands_may_have_no_tile():
    found = kept(make_scene(np.ones((198, 70, 80), "int16")), lambda lon, lat: [""] * len(lon))
    assert found.attrs["counts"] == {"in": 1, "kept": 0, "rejected": {"split_border": 1}}
    assert found.tiles.shape == (0, 198, 64, 64)


def test_a_scene_without_a_place_keeps_no_tile(dn):
    out = kept(make_scene(dn, crs=None), to_train)
    assert out.attrs["counts"] == {"in": 6, "kept": 0, "rejected": {"no_place": 6}}


def test_uint16_becomes_int16_only_if_it_fits(dn):
    scene = make_scene(abs(dn).astype("uint16"))
    np.testing.assert_array_equal(tile(scene, to_train).tiles[0], abs(dn)[:, :64, :64])
    large = abs(dn).astype("uint16")
    large[1, 70, 3] = 32768
    out = tile(make_scene(large), to_train)
    with pytest.raises(SceneError, match="S: expected DN that int16 holds"):
        out.tiles.compute()


def test_reflectance_comes_before_dn_and_stays_float(dn):
    scene = make_scene(dn)
    scene["reflectance"] = scene.dn.astype("float32") / 10000
    out = tile(scene, to_train)
    assert (out.tiles.dtype, out.attrs["units"], out.attrs["scale"]) == ("float32", "1", 1.0)
    np.testing.assert_array_equal(out.tiles[1], dn[:, :64, 64:128].astype("float32") / 10000)


def test_place_is_the_tiles_centre_on_a_map(dn):
    out = tile(make_scene(dn), to_train)
    # Tile at row 64, col 0: its centre is 32 pixels right of and 96 below the scene's corner
    lon, lat = transform("EPSG:32633", "EPSG:4326", [362175 + 32 * 30], [5809965 - 96 * 30])
    assert (out.lon[2], out.lat[2]) == pytest.approx((lon[0], lat[0]), abs=1e-9)


def footprint(tiles, number):
    names = "right_east", "right_north", "down_east", "down_north"
    return np.array([float(tiles[name][number]) for name in names])


def test_footprint_on_a_map_is_turned_and_scaled_as_the_map_is(dn):
    out = tile(make_scene(dn), to_train)
    lon, lat = np.radians((float(out.lon[2]), float(out.lat[2])))
    # UTM zone 33: Snyder 1987 (USGS PP 1395), equations 8-11 and 8-13 to first orders.
    x = 362175 + 32 * 30 - 500000
    turn = np.arctan(np.tan(lon - np.radians(15)) * np.sin(lat))
    metres = 960 / (0.9996 * (1 + x**2 / 2 / 6385000**2))
    # The map's north lies `turn` east of true north, here west of it.
    right = metres * np.cos(turn), -metres * np.sin(turn)
    np.testing.assert_allclose(footprint(out, 2), [*right, right[1], -right[0]], atol=0.02)


def test_footprint_of_corners_in_degrees(dn):
    corners = {
        "ul": [13.0, 60.2],
        "ur": [13.149, 60.2],
        "ll": [13.0, 60.001],
        "lr": [13.149, 60.001],
    }
    out = tile(make_scene(dn, crs=None, corners=corners), to_train)
    # 0.001 deg a pixel, on the ellipsoid's radii at the tile's centre
    lat = np.radians(float(out.lat[0]))
    normal = 6378137 / np.sqrt(1 - 0.00669438 * np.sin(lat) ** 2)
    meridian = normal**3 / 6378137**2 * (1 - 0.00669438)
    east, north = np.radians(0.032) * normal * np.cos(lat), np.radians(0.032) * meridian
    np.testing.assert_allclose(footprint(out, 0), [east, 0, 0, -north], atol=1.5)


def test_footprint_of_an_unknown_place_is_unknown(dn):
    assert np.isnan(windows({}, (64, 64), to_train).footprint["down_east"]).all()


def test_assign_gets_the_four_outer_corners(dn):
    seen = []

    def remember(lon, lat):
        seen.append((lon, lat))
        return to_train(lon, lat)

    tile(make_scene(dn), remember)
    x, y = 362175 + 64 * 30 * np.array([0, 1, 0, 1]), 5809965 - 64 * 30 * np.array([0, 0, 1, 1])
    expected = transform("EPSG:32633", "EPSG:4326", x, y)
    np.testing.assert_allclose(seen[0][0][0], expected[0], atol=1e-9)
    np.testing.assert_allclose(seen[0][1][0], expected[1], atol=1e-9)


def test_rpc_place_agrees_with_gdal_and_with_the_formula(tmp_path):
    rows, cols = 200, 150
    text = rpb_text(rows, cols)
    write_tif(tmp_path / "a.tif", np.ones((1, rows, cols), "u2"))
    (tmp_path / "a.rpb").write_text(text)
    rpc = parse_rpb(text.encode(), where="a.rpb")
    with rasterio.open(tmp_path / "a.tif") as file:
        gdal = file.rpcs.to_dict()
    assert rpc == {key: gdal[key] for key in rpc}
    lon, lat = lonlat({"rpc": rpc}, (rows, cols), [0, 100, 200], [0, 75, 150])
    # 0.0004 deg a column, 0.0003 deg a row; line and sample 0 are the first pixel's centre, and
    # the offsets the image's centre, half a pixel from its corner at (0, 0)
    np.testing.assert_allclose(lon, 13.0 + 0.0004 * np.array([-75, 0, 75]), atol=1e-7)
    np.testing.assert_allclose(lat, 52.4 - 0.0003 * np.array([-100, 0, 100]), atol=1e-7)


def test_corner_place_is_bilinear_also_across_the_date_line():
    corners = {"ul": [179.9, 10.0], "ur": [-179.9, 11.0], "ll": [179.8, 9.0], "lr": [-180.0, 10.0]}
    # An 11 x 21 image: the corners are the centres of its corner pixels
    rows, cols = [[0.5, 0.5], [10.5, 5.5]], [[0.5, 20.5], [0.5, 10.5]]
    lon, lat = lonlat({"corners": corners}, (11, 21), rows, cols)
    np.testing.assert_allclose(lon, [[179.9, -179.9], [179.8, 179.95]], atol=1e-9)
    np.testing.assert_allclose(lat, [[10, 11], [9, 10]])


def test_rejects_a_scene_without_mask_and_impossible_rules(dn):
    scene = make_scene(dn)
    with pytest.raises(SchemaError, match="needs the step mask"):
        tile(scene.drop_vars("valid"), to_train)
    for wrong in ({"stride": 0}, {"min_valid": 0}, {"min_valid": 1.1}):
        with pytest.raises(ValueError, match="must be"):
            tile(scene, to_train, **wrong)


def with_masks(scene, **masks):
    images = {name: (("y", "x"), da.from_array(image)) for name, image in masks.items()}
    return scene.assign(images).assign_attrs(masks=list(masks))


def test_rules_name_columns_and_the_first_broken_one_is_the_reason(dn):
    cloud, water = np.zeros((200, 150), bool), np.zeros((200, 150), bool)
    cloud[:64, :32] = True  # half of tile (0, 0)
    cloud[64:128, 64:80] = True  # a quarter of tile (64, 64)
    water[:64, :64] = True
    rules = {"water_fraction": {"max": 0.9}, "cloud_fraction": {"max": 0.3}}
    scene = with_masks(make_scene(dn), cloud=cloud, water=water)
    out = tile(scene, to_train, keep=rules).compute()
    assert out.reason.values.tolist() == ["water_fraction", "", "", "", "", ""]
    np.testing.assert_array_equal(out.cloud_fraction, np.float32([0.5, 0, 0, 0.25, 0, 0]))
    swapped = tile(scene, to_train, keep=dict(reversed(rules.items())))
    assert kept_tiles(swapped).attrs["counts"] == {
        "in": 6, "kept": 5, "rejected": {"cloud_fraction": 1},
    }  # fmt: skip
    assert swapped.attrs["steps"][-1]["keep"]["cloud_fraction"] == {"max": 0.3}
    assert "masks" not in out.attrs


def test_measures_of_pixels_are_columns_and_rules(dn):
    rng = np.random.default_rng(1)
    clean = np.broadcast_to(np.arange(2000, 2012)[:, None, None] * 2.0, (12, 128, 128)).copy()
    clean[:, 64:] += rng.normal(0, 400, (12, 64, 128))
    clean[:, :64] += rng.normal(0, 20, (12, 64, 128))
    corners = {"ul": [13.0, 52.1], "ur": [13.1, 52.1], "ll": [13.0, 52.0], "lr": [13.1, 52.0]}
    scene = make_scene(clean.round().astype("int16"), crs=None, corners=corners)
    out = tile(
        scene, to_train, measure=("snr", "stripe_index"), keep={"snr": {"min": 50}}
    ).compute()
    assert out.reason.values.tolist() == ["", "", "snr", "snr"]
    np.testing.assert_allclose(out.snr, [200, 200, 10, 10], rtol=0.3)
    assert (out.stripe_index[:2] < 0.002).all()
    on_map = tile(
        make_scene(dn), to_train, measure=("stripe_index",), keep={"stripe_index": {"max": 1}}
    )
    assert "stripe_index" not in on_map
    assert on_map.attrs["steps"][-1]["not_applied"] == ["stripe_index"]


def test_a_rule_on_a_mask_that_the_bands_do_not_allow_is_said_not_to_apply(dn):
    scene = make_scene(dn, steps=[{"step": "scores", "unavailable": {"cirrus": "no band"}}])
    out = kept(scene, to_train, keep={"cirrus_fraction": {"max": 0.1}})
    assert out.attrs["counts"]["kept"] == 6
    assert out.attrs["steps"][-1]["not_applied"] == ["cirrus_fraction"]
    with pytest.raises(SchemaError, match=r"keep must name columns.*got \['fog_fraction'\]"):
        tile(scene, to_train, keep={"fog_fraction": {"max": 0.1}})
    with pytest.raises(ValueError, match="expected min, max or both"):
        tile(scene, to_train, keep={"cirrus_fraction": {"most": 0.1}})
