import json

import dask
import numpy as np
import pytest

from pipeline.readers import open_scene
from pipeline.steps.coregister import coregister
from pipeline.steps.masks import mask
from tests.pipeline.raw_products import SHARED
from tests.pipeline.scenes import ground, noisy, scene_of, smooth
from tests.pipeline.steps.test_destripe import never_compute

PRODUCTS = ["EO1H1930242013205110KF_1R.tgz",
            "GF5B_AHSI_E13.0_N52.4_20231031_011422_L10000412729.tar.gz"]  # fmt: skip


def fine(bands, rows, cols, seed=0):
    """Ground with detail down to the pixel, as 30 m images have it."""
    sharp = np.random.default_rng(seed).standard_normal((rows, cols))
    sharp = sum(np.roll(sharp, s, (0, 1)) for s in ((0, 0), (0, 1), (1, 0), (1, 1))) / 2
    return ground(bands, rows, cols) * (1 + 0.1 * sharp + 0.05 * smooth(1, rows, cols, 8)[0])


def moved(image, down, right):
    ramp = np.exp(-2j * np.pi * (np.fft.fftfreq(image.shape[1])[:, None] * down
                                 + np.fft.rfftfreq(image.shape[2]) * right))  # fmt: skip
    return np.fft.irfft2(np.fft.rfft2(image) * ramp, s=image.shape[1:])


def scene_moved(left, right, across, *, noise=0.005, rows=192):
    light = fine(8, rows, 256)
    swir = np.concatenate(
        [moved(light[4:], left, across)[..., :128], moved(light[4:], right, across)[..., 128:]], 2
    )
    dn = np.rint(noisy(np.concatenate([light[:4], swir]), noise)).astype("int16")
    return scene_of(dn), light


@pytest.mark.parametrize(
    ("left", "right", "across", "applied"),
    [(0, 0, 0, [(0, 0), (0, 0)]), (0, 0, 1, [(0, 1), (0, 1)]), (0, 1, 0, [(0, 0), (1, 0)]),
     (0.7, 1, 1, [(1, 1), (1, 1)]), (0.3, 0.2, 0.4, [(0, 0), (0, 0)]),
     (-1, 0, -1, [(-1, -1), (0, -1)])],
)  # fmt: skip
def test_finds_and_takes_back_known_shifts(left, right, across, applied):
    scene, _ = scene_moved(left, right, across)
    step = coregister(scene).attrs["steps"][-1]
    for name, down, took in (("left", left, applied[0]), ("right", right, applied[1])):
        found = step["effect"][name]
        assert found["significant"]
        np.testing.assert_allclose(found["shift"], (down, across), atol=0.1)
        assert tuple(found["applied"]) == took
        before, after = found["correlation"]
        assert after > before if any(took) else after == before
        assert found["uncertainty"] < 0.1
    assert step["applied"] is any(any(pair) for pair in applied)


def test_half_a_pixel_counts_as_one():
    scene, _ = scene_moved(0.56, 1, 1)
    effect = coregister(scene).attrs["steps"][-1]["effect"]
    assert (effect["left"]["applied"], effect["right"]["applied"]) == ([1, 1], [1, 1])


def test_swir_moves_by_whole_pixels_and_vacates_what_it_leaves():
    scene, _ = scene_moved(1, 0, 1)
    flags = np.zeros(scene.dn.shape, "u1")
    flags[5, 20, 30] = 1
    scene = scene.assign(flags=(("band", "y", "x"), flags))
    out = coregister(scene)
    before, after, gone = scene.dn.values, out.dn.values, out.vacated.values
    np.testing.assert_array_equal(after[:4], before[:4])
    np.testing.assert_array_equal(after[4:, :-1, :127], before[4:, 1:, 1:128])
    np.testing.assert_array_equal(after[4:, :, 128:-1], before[4:, :, 129:])
    expected = np.zeros(before.shape, bool)
    expected[4:, -1, :128] = expected[4:, :, -1] = True
    np.testing.assert_array_equal(gone, expected)
    assert (after[gone] == 0).all()
    assert np.argwhere(out.flags.values).tolist() == [[5, 19, 29]]
    assert (out.dn.dtype, out.dn.chunks) == (scene.dn.dtype, scene.dn.chunks)
    # What was vacated is dead to mask, although the pixel has VNIR.
    np.testing.assert_array_equal(
        mask(out, max_dead=1).dead.values[4:], expected[4:] | (out.flags.values[4:] == 1)
    )


def test_pixels_stay_lazy():
    scene, _ = scene_moved(0, 0, 1)
    out = coregister(scene)
    with dask.config.set(scheduler=never_compute), pytest.raises(AssertionError):
        out.dn.compute()
    assert out.attrs["steps"][:-1] == scene.attrs["steps"] == []


def test_featureless_water_is_not_significant():
    dn = np.rint(noisy(np.full((8, 192, 256), 500.0), 0.01)).astype("int16")
    out = coregister(scene_of(dn))
    step = out.attrs["steps"][-1]
    assert step["applied"] is False
    assert not any(half["significant"] for half in step["effect"].values())
    json.dumps(step, allow_nan=False)
    np.testing.assert_array_equal(out.dn, dn)


def test_says_why_it_did_not_look():
    dn = np.ones((8, 192, 256), "int16")
    far = scene_of(dn).assign_coords(wavelength=("band", np.arange(8) * 100.0))
    for scene, why in ((scene_of(dn, crs="EPSG:32633"), "map geometry"),
                       (far, "no VNIR and SWIR bands within 15 nm"),
                       (scene_of(dn[:, :32]), "too few pixels")):  # fmt: skip
        step = coregister(scene).attrs["steps"][-1]
        assert step["applied"] is False
        assert why in step["why"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_real_products_are_registered(name):
    if not (SHARED / name).exists():
        pytest.skip(f"no {name}")
    step = coregister(open_scene(SHARED / name)).attrs["steps"][-1]
    for half in step["effect"].values():
        assert half["significant"]
        assert np.abs(half["shift"]).max() < 0.05
        assert half["applied"] == [0, 0]


def test_what_the_reader_vacated_stays_so_and_moves_along():
    scene, _ = scene_moved(0, 0, 1)
    before = np.zeros(scene.dn.shape, bool)
    before[4:, :, :10] = True
    scene["vacated"] = (scene.dn.dims, dask.array.from_array(before, chunks=scene.dn.chunks))
    out = coregister(scene)
    gone = out.vacated.values
    assert not gone[:4].any()
    assert gone[4:, :, :9].all()
    assert gone[4:, :, -1].all()
    assert not gone[4:, :, 9:-1].any()
