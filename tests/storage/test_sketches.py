import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.schema import INTEGER_FILL
from storage.sketches import (
    RELATIVE_ACCURACY,
    STEP,
    SceneSketch,
    bin_values,
    parts,
    quantiles,
)


def make(seed, dtype, count=9, bands=3, *, scale=1.0):
    rng = np.random.default_rng(seed)
    pixels = scale * rng.lognormal(6 if dtype == "int16" else -1.5, 0.8, (count, bands, 64, 64))
    pixels[:, 0] -= pixels[:, 0].mean()
    if dtype == "int16":
        pixels = pixels.clip(-32000, 32000).round()
        pixels[rng.random(pixels.shape) < 0.05] = rng.choice(INTEGER_FILL)
    else:
        pixels[rng.random(pixels.shape) < 0.05] = np.nan
    return pixels.astype(dtype), rng.random((count, 64, 64)) < 0.9, rng.integers(0, 3, count, "u1")


def lattice(pixels, valid, split):
    """By split and band, what is measured in the rows that are looked at, one by one."""
    found = {(s, b): [] for s in range(3) for b in range(pixels.shape[1])}
    for number, tile in enumerate(pixels):
        rows = [r for r in range(64) if r % STEP == number * 7 % STEP]
        for band, image in enumerate(tile):
            values = image[rows][valid[number, rows]].astype("f8")
            fill = ~np.isfinite(values) if tile.dtype.kind == "f" else np.isin(values, INTEGER_FILL)
            found[int(split[number]), band] += values[~fill].tolist()
    return found


def sketch_of(*parts_of_a_scene):
    pixels = parts_of_a_scene[0][0]
    sketch = SceneSketch(pixels.shape[1], pixels.dtype, "1")
    for part in parts_of_a_scene:
        sketch.add(*part)
    return sketch


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_moments_and_quantiles_are_those_of_numpy_on_the_same_pixels(dtype):
    scene = make(1, dtype, count=30)
    sketch = sketch_of(scene)
    counts, first = sketch.trimmed()
    values = bin_values(first, counts.shape[2], integers=dtype == "int16")
    probabilities = np.array([0.0, 0.02, 0.25, 0.5, 0.9, 0.99, 1.0])
    unit = parts(np.dtype(dtype), "1")
    for (split, band), expected in lattice(*scene).items():
        count, total, squares = sketch.moments[split, band].tolist()
        assert count == len(expected) == counts[split, band].sum()
        assert total / unit == pytest.approx(np.sum(expected), rel=1e-6, abs=1e-4)
        assert squares / unit == pytest.approx(np.sum(np.square(expected)), rel=1e-6)
        got = quantiles(counts[split], values, probabilities)[:, band]
        exact = np.quantile(expected, probabilities, method="lower")
        np.testing.assert_allclose(got, exact, rtol=RELATIVE_ACCURACY * 1.001, atol=2.0**-13)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.sampled_from(["int16", "float32"]), st.sets(st.integers(1, 8)))
def test_any_partition_of_a_scene_gives_the_same_sketch(seed, dtype, cuts):
    scene = make(seed, dtype)
    edges = [0, *sorted(cuts), 9]
    cut = [tuple(a[i:j] for a in scene) for i, j in itertools.pairwise(edges)]
    whole, pieces = sketch_of(scene), sketch_of(*cut)
    np.testing.assert_array_equal(whole.moments, pieces.moments)
    for a, b in zip(whole.trimmed(), pieces.trimmed(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_tiles_than_are_counted_at_a_time():
    pixels = np.full((700, 1, 64, 64), 7, "int16")
    sketch = SceneSketch(1, pixels.dtype, "DN")
    for start in range(0, 700, 64):
        part = pixels[start : start + 64]
        sketch.add(part, np.ones((len(part), 64, 64), bool), np.zeros(len(part), "u1"))
    counts, first = sketch.trimmed()
    assert counts.sum() == 700 * 128
    assert bin_values(first, 1, integers=True) == [7]
    assert sketch.moments[0, 0].tolist() == [700 * 128, 7 * 700 * 128, 49 * 700 * 128]


def test_each_detector_column_and_in_the_end_each_row_is_met():
    pixels = np.zeros((32, 2, 64, 64), "int16")
    pixels[:, 0] = np.arange(1, 65)
    pixels[:, 1] = np.arange(1, 65)[:, None]
    sketch = sketch_of((pixels, np.ones((32, 64, 64), bool), np.zeros(32, "u1")))
    counts, first = sketch.trimmed()
    values = bin_values(first, counts.shape[2], integers=True)
    for band in range(2):
        assert values[counts[0, band] > 0].tolist() == list(range(1, 65))
        assert set(counts[0, band][counts[0, band] > 0]) == {64}


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_the_ends_of_the_range(dtype):
    extremes = [-32768, -32766, 32767, 1, -1] if dtype == "int16" else [-1e30, 1e30, 1e-30, -1e-3]
    pixels = np.resize(np.array(extremes, dtype), (1, 1, 64, 64))
    sketch = sketch_of((pixels, np.ones((1, 64, 64), bool), np.zeros(1, "u1")))
    counts, first = sketch.trimmed()
    assert counts.sum() == 128
    low, high = quantiles(
        counts[0], bin_values(first, counts.shape[2], integers=False), np.array([0.0, 1.0])
    )[:, 0]
    expected = (-32768, 32767) if dtype == "int16" else (-65536, 65536)
    np.testing.assert_allclose((low, high), expected, rtol=RELATIVE_ACCURACY * 1.001)


def test_nothing_measured_is_an_empty_sketch():
    pixels = np.full((2, 3, 64, 64), np.nan, "float32")
    sketch = sketch_of((pixels, np.ones((2, 64, 64), bool), np.zeros(2, "u1")))
    counts, first = sketch.trimmed()
    assert (counts.sum(), first, sketch.moments.sum()) == (0, 0, 0)
    assert np.isnan(quantiles(counts[0], bin_values(0, 1, integers=False), np.array([0.5]))).all()
    assert SceneSketch(3, np.dtype("i2"), "DN").trimmed()[0].shape == (3, 3, 1)
