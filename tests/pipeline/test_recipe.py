import json

import dask
import numpy as np
import pytest

from configs import ConfigError
from pipeline.readers import open_scene
from pipeline.recipe import apply, load_recipe, recipe_hash
from pipeline.split import SplitConfig
from storage.scenes import kept_tiles
from tests.pipeline import raw_products as raw

SPLIT = SplitConfig()


def write(tmp_path, steps):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: mine\nsteps:\n" + "\n".join(f"  - {step}" for step in steps) + "\n")
    return path


@pytest.mark.parametrize("name", ["reference", "reflectance"])
def test_shipped_recipes_load_and_have_a_stable_hash(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_hash(recipe, SPLIT) == recipe_hash(load_recipe(name), SPLIT)
    assert len(recipe_hash(recipe, SPLIT)) == 64
    assert next(iter(recipe.steps[-1])) == "tile"


def test_hash_knows_defaults_and_numbers_but_neither_name_nor_order_of_keys(tmp_path):
    base = ["bands: {name: calibrated}", "mask: {}", "tile: {stride: 64, min_valid: 0.9}"]
    first = recipe_hash(load_recipe(write(tmp_path, base)), SPLIT)
    same = ["bands: {name: calibrated}", "mask: {max_dead: 0.1}", "tile: {min_valid: 0.9}"]
    assert recipe_hash(load_recipe(write(tmp_path, same)), SPLIT) == first
    other = [*base[:2], "tile: {min_valid: 0.8}"]
    assert recipe_hash(load_recipe(write(tmp_path, other)), SPLIT) != first
    recipe = load_recipe(write(tmp_path, base))
    assert recipe_hash(recipe, SplitConfig(seed=1)) != first
    longer = [base[0], "detectors: {}", *base[1:]]
    assert recipe_hash(load_recipe(write(tmp_path, longer)), SPLIT) != first


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        (["mask: {}", "smooth: {}", "tile: {}"], "unknown step 'smooth'"),
        (["mask: {max_deed: 1}", "tile: {}"], "max_dead.*got.*max_deed"),
        (["mask: {max_dead: many}", "tile: {}"], "mask.max_dead"),
        (["normalize: {method: zscore}", "mask: {}", "tile: {}"], "normalize.method"),
        (["bands: {}", "mask: {}", "tile: {}"], "bands needs name"),
        (["mask: {}"], "tile as its end"),
        (["tile: {}", "mask: {}"], "tile as its end"),
        (["tile: {}"], "must have mask"),
    ],
)
def test_rejects_recipes_that_do_not_fit(steps, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        load_recipe(write(tmp_path, steps))


def test_reference_stores_the_products_integers(tmp_path):
    dn = raw.hyperion_dn(70, 130)
    dn[:, :, :4] = 0
    scene = open_scene(raw.write_l1t(tmp_path / "p", dn))
    tiles = kept_tiles(apply(load_recipe("reference"), scene, SplitConfig(block_km=1000)))
    kept = [*range(7, 57), *range(76, 120), *range(126, 166), *range(180, 221)]
    np.testing.assert_array_equal(tiles.band.values - 1, kept)
    assert tiles.col.values.tolist() == [0, 64]
    np.testing.assert_array_equal(tiles.tiles[0], dn[kept, :64, :64])
    np.testing.assert_array_equal(tiles.tiles[1], dn[kept, :64, 64:128])
    np.testing.assert_array_equal(tiles.valid[0], (dn[7:57] != 0).any(0)[:64, :64])
    assert (tiles.tiles.dtype, tiles.attrs["scale"]) == ("int16", 4000)
    names = [step["step"] for step in tiles.attrs["steps"]]
    assert names == ["bands", "mask", "normalize", "tile"]
    assert tiles.attrs["steps"][-1]["split"]["block_km"] == 1000
    json.dumps(tiles.attrs)


def test_reflectance_is_nan_where_not_valid_and_never_infinite(tmp_path):
    dn = raw.ahsi_dn(70, 130)
    dn[:, :5] = 0
    scene = open_scene(raw.write_ahsi(tmp_path / "p", dn))
    tiles = kept_tiles(apply(load_recipe("reflectance"), scene, SplitConfig(block_km=1000)))
    with dask.config.set(scheduler="sync"):
        values, valid = tiles.tiles.values, tiles.valid.values
    assert (values.dtype, values.shape[1]) == (np.float32, 292)
    assert not valid[:, :5].any()
    assert valid[:, 5:].all()
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(~valid[:, None], values.shape))
    assert not np.isinf(values).any()
    # pi L d^2 / (E sin(elevation)) for band 10 at one pixel; E, d within 1 %
    radiance = scene.gain.values[9] * dn[9, 20, 30] + 0.5
    expected = np.pi * radiance * 0.9926**2 / (1700 * 0.5)
    assert values[0, 9, 20, 30] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["radiance: {}", "destripe: {}", "mask: {}"], "destripe cannot come after radiance"),
        (["mask: {}", "detectors: {}"], "detectors cannot come after mask"),
        (["radiance: {}", "reflectance: {}", "mask: {}"], "mask cannot come after reflectance"),
        (["mask: {}", "scores: {}", "scores: {}"], "scores cannot come after scores"),
        (["radiance: {}", "mask: {}", "reflectance: {}", "surface: {}"], "surface cannot come"),
    ],
)
def test_rejects_steps_in_another_order(tmp_path, steps, words):
    file = tmp_path / "r.yaml"
    lines = "\n".join(f"  - {step}" for step in [*steps, "tile: {}"])
    file.write_text(f"name: r\nsteps:\n{lines}\n")
    with pytest.raises(ConfigError, match=words):
        load_recipe(file)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("{snr: {min: 20}}", "add it to tile.measure"),
        ("{valid_fraction: {max: .nan}}", "finite limits"),
        ("{valid_fraction: {min: 1, max: 0.5}}", "min <= max"),
        ("{valid_fraction: {}}", "expected min, max or both"),
        ("{cloud_fraction: {max: 0.3}}", "needs the step scores"),
    ],
)
def test_rejects_rules_that_say_nothing(tmp_path, keep, words):
    file = tmp_path / "r.yaml"
    file.write_text(f"name: r\nsteps:\n  - mask: {{}}\n  - tile: {{keep: {keep}}}\n")
    with pytest.raises(ConfigError, match=words):
        load_recipe(file)
