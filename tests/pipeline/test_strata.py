import json
import multiprocessing
import os
import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest
import rasterio

import configs
from pipeline.blocks import block_of, columns
from pipeline.build import DatasetConfig
from pipeline.land import load
from pipeline.recipe import load_recipe, recipe_hash, recipe_json, scene_recipe_hash
from pipeline.split import BORDER, SplitConfig, assign, pinned, record, split_at
from pipeline.strata import CLASSES, classes, draws
from tests.pipeline.land_masks import write_tif
from tests.pipeline.test_split import KM, grid

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def coast(lon, lat):
    """A winding coast from south to north with islands in the west, as a formula."""
    edge = 12 + 0.8 * np.sin(lat * 2.1) + 0.3 * np.sin(lat * 9)
    islands = (np.sin(lon * 7) * np.sin(lat * 8) > 0.85) & (lon < 11)
    return (lon > edge) | islands


@pytest.fixture
def mask(tmp_path):
    """8..16 deg east, 48..56 deg north."""
    lon, lat = np.meshgrid(np.arange(8.005, 16, 0.01), np.arange(55.995, 48, -0.01))
    return write_tif(tmp_path / "land.tif", coast(lon, lat).astype("uint8"), (8, 48, 16, 56))


def config(mask, **given):
    return SplitConfig(block_km=5, land_mask=mask, **{"fractions": SHARES, **given})


def blocks(found, west, south, east, north):
    """Return a point in the middle of each block there, and the blocks' classes."""
    lon, lat = np.meshgrid(np.arange(west, east, 0.01), np.arange(south, north, 0.01))
    row, col = block_of(lon.ravel(), lat.ravel(), found.block_km)
    each, which = np.unique(np.stack([row, col]), axis=1, return_inverse=True)
    count = np.bincount(which)
    middle = [np.bincount(which, values.ravel()) / count for values in (lon, lat)]
    whole = count >= 0.8 * np.median(count)
    kind = classes(load(found.land_mask), *each, found.block_km)
    return middle[0][whole], middle[1][whole], kind[whole]


def test_each_class_has_its_shares_overall_and_in_every_neighbourhood(mask):
    found = config(mask)
    lon, lat, kind = blocks(found, 8, 48, 16, 56)
    split = split_at(found, lon, lat)
    near = ((lon // 1.6) * 100 + lat // 1).astype(int)
    off, independent = [], []
    for number in range(1, len(CLASSES)):
        of_class = kind == number
        assert of_class.sum() > 500
        for name, share in SHARES.items():
            assert (split[of_class] == name).mean() == pytest.approx(share, abs=0.008)
            for place in np.unique(near):
                here = of_class & (near == place)
                if (count := here.sum()) >= 20:
                    off.append(abs((split[here] == name).mean() - share))
                    # Mean absolute deviation of as many independent draws.
                    independent.append(np.sqrt(2 / np.pi * share * (1 - share) / count))
    # 1.6 x 1 deg is not aligned with the cells of 80 km, in which the shares are right to a block.
    assert len(off) > 200
    assert np.mean(off) < 0.6 * np.mean(independent)
    assert max(off) < 0.16
    # Coasts are what a draw without the mask has no eye for.
    split = split_at(replace(found, land_mask=None), lon, lat)[kind == CLASSES.index("mixed")]
    assert max(abs((split == name).mean() - share) for name, share in SHARES.items()) > 0.01


def test_every_class_of_a_cell_is_right_to_one_block(mask):
    """Of a cell's n blocks of one class a split has share * n, rounded up or down."""
    block_km = 5
    (row,), (col,) = block_of(np.array([12.0]), np.array([52.0]), block_km)
    band = row // 16
    rows = np.repeat(band * 16 + np.arange(16.0), 80)
    cols = np.tile(col + np.arange(-40.0, 40), 16)
    count = columns(np.append(rows, band * 16 + 8), block_km)
    cell = np.floor((np.append(cols, col) + 0.5) / columns(np.append(rows, row), block_km)
                    * np.round(count[-1] / 16))  # fmt: skip
    here = cell[:-1] == cell[-1]
    rows, cols = rows[here], cols[here]
    value = draws(rows, cols, load(mask), block_km=block_km, seed=3)
    kind = classes(load(mask), rows, cols, block_km)
    assert set(kind) == {1, 2, 3}
    for number in set(kind):
        of_class = np.sort(value[kind == number])
        np.testing.assert_allclose(np.diff(of_class), 1 / of_class.size)
        assert 0 <= of_class[0] < 1 / of_class.size


def test_a_place_keeps_its_split_at_other_dates_by_other_sensors_and_among_more_scenes(mask):
    found = config(mask)
    lon, lat = grid(11.5, 52.0, 24)
    alone = assign(found, lon, lat)
    assert set(alone) == {*SHARES, BORDER}
    later = [grid(west, south, 24) for west, south in [(9.0, 49.0), (11.7, 52.1), (14.0, 54.0)]]
    both = [np.concatenate(parts) for parts in zip((lon, lat), *later, strict=True)]
    np.testing.assert_array_equal(assign(found, *both)[: len(alone)], alone)
    order = np.random.default_rng(0).permutation(len(lon))
    np.testing.assert_array_equal(assign(found, lon[order], lat[order]), alone[order])
    # Another sensor has other windows: points of one block agree, whoever asks.
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(11, 13, 4000), rng.uniform(51, 53, 4000)
    split = split_at(found, lon, lat)
    _, which = np.unique(np.stack(block_of(lon, lat, 5)), axis=1, return_inverse=True)
    assert all(len(set(split[which == each])) == 1 for each in np.unique(which))


def test_tiles_of_two_splits_are_twice_the_guard_apart(mask):
    found = config(mask, guard_m=400)
    lon, lat = grid(11.5, 52.0, 24)
    split = assign(found, lon, lat)
    y = lat.mean(1) * KM
    x = lon[:, 0] * KM * np.cos(np.radians(52.0))
    gap = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) - 1.92
    kept = split != BORDER
    differ = (split[:, None] != split) & kept[:, None] & kept
    assert differ.any()
    assert gap[differ].min() > 0.8 * 0.98  # the scene's columns converge with the meridians


def test_where_the_mask_ends_blocks_are_unknown_and_have_their_shares(mask):
    found = config(mask)
    lon, lat, kind = blocks(found, 30, 10, 33, 13)
    assert set(kind) == {0}
    split = split_at(found, lon, lat)
    for name, share in SHARES.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.02)
    _, _, kind = blocks(found, 15.5, 50, 16.5, 51)
    assert set(kind) == {0, 1}


@pytest.mark.parametrize("lat", [-90, -89.99, -61.3, 0, 61.3, 89.9, 90])
def test_every_place_on_earth_has_a_split(mask, lat):
    lon = np.concatenate([np.linspace(-180, 540, 97), [-180 - 1e-15, 180 - 1e-13]])
    assert set(split_at(config(mask), lon, np.full(lon.size, float(lat)))) <= set(SHARES)


def test_without_a_mask_hash_and_record_are_those_of_old():
    # Made by the version before land masks.
    recipe = load_recipe("reference")
    known = "b5c6b336e80cee804f2bf5bbab1a6bb1a02330e15d8c335e3fa65a9546d41596"
    assert recipe_hash(recipe, SplitConfig()) == known
    assert set(json.loads(recipe_json(recipe, SplitConfig()))["split"]) == {
        "block_km", "guard_m", "fractions", "seed",
    }  # fmt: skip
    assert pinned(SplitConfig()) == SplitConfig()


def test_the_recipe_has_the_masks_bytes_and_not_its_path(mask, tmp_path):
    recipe = load_recipe("reference")
    first = recipe_hash(recipe, config(mask))
    assert first != recipe_hash(recipe, replace(config(mask), land_mask=None))
    assert str(mask) not in recipe_json(recipe, config(mask))
    copy = tmp_path / "copy.tif"
    copy.write_bytes(mask.read_bytes())
    assert recipe_hash(recipe, config(copy)) == first == recipe_hash(recipe, pinned(config(copy)))
    before = scene_recipe_hash(recipe, config(copy), "hyperion")
    with rasterio.open(copy, "r+") as file:
        file.write(1 - file.read(1), 1)
    os.utime(copy, ns=(1, 1))  # a second build may come within the clock's step
    assert recipe_hash(recipe, config(copy)) != first
    assert scene_recipe_hash(recipe, config(copy), "hyperion") != before
    assert json.loads(json.dumps(record(config(mask))))["land_mask"] == load(mask).sha256


def test_a_mask_that_changes_during_a_build_is_refused(mask):
    found = pinned(config(mask))
    assert found.land_mask.is_absolute()
    lon, lat = np.array([11.0]), np.array([52.0])
    split_at(found, lon, lat)
    with rasterio.open(mask, "r+") as file:
        file.write(1 - file.read(1), 1)
    os.utime(mask, ns=(1, 1))
    with pytest.raises(ValueError, match=r"expected .*land\.tif with sha256 .* got .* build again"):
        split_at(found, lon, lat)


def _in_another_process(pickled):
    found = pickle.loads(pickled)  # noqa: S301  # of our own making
    return assign(found, *grid(11.5, 52.0, 8)).tolist()


def test_a_spawned_process_says_the_same(mask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = pinned(config("land.tif"))
    here = _in_another_process(pickle.dumps(found))
    monkeypatch.chdir("/")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_another_process, (pickle.dumps(found),)) == here
    assert len(pickle.dumps(found)) < 1000


def test_a_dataset_config_names_it(mask, tmp_path):
    file = tmp_path / "dataset.yaml"
    file.write_text(
        f"name: a\nsource: raw\nstore: s\nrecipe: reference\nsplit: {{land_mask: {mask}}}"
    )
    split = configs.load(DatasetConfig, file).split
    assert split.land_mask == mask
    assert asdict(split)["land_mask_sha256"] == ""
    with pytest.raises(ValueError, match="needs land_mask"):
        SplitConfig(land_mask_sha256="abc")
