import dask
import numpy as np
import pytest

from pipeline.quality.stripes import stripe_index
from pipeline.readers import open_scene
from pipeline.steps.destripe import apply_gains, destripe, destripe_array
from pipeline.steps.detectors import detectors
from pipeline.synth import write_products
from tests.pipeline.raw_products import SHARED
from tests.pipeline.scenes import gains, ground, noisy, scene_of

L1R = SHARED / "EO1H1930242013205110KF_1R.tgz"
L1T = SHARED / "EO1H1930242013205110KF_1T.ZIP"
SALTON = SHARED.parent / "salton" / "salton_sea_roi.mat"


def never_compute(*args, **kwargs):
    raise AssertionError("computed a dask graph while building it")


def index(values):
    return stripe_index(values, np.ones(values.shape[1:], bool))


def striped_scene(spread=0.01, **options):
    light = ground(**options)
    made = gains(*light.shape[::2], spread)
    return np.rint(noisy(light) * made[:, None]).astype("int16"), light, made


@pytest.mark.parametrize("texture", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("rows", [192, 500])
def test_brings_the_columns_near_the_truth(texture, rows):
    dn, _, made = striped_scene(0.01, texture=texture, rows=rows)
    out = destripe(scene_of(dn))
    left = np.log(made) - np.log(dn.sum(1) / out.dn.values.sum(1))
    left -= left.mean(1, keepdims=True)
    assert left.std() < 0.01 / 3
    effect = out.attrs["steps"][-1]["effect"]
    for detector, part in (("VNIR", slice(0, 30)), ("SWIR", slice(30, 60))):
        before, after = effect[detector]["stripe_index"]
        assert before == pytest.approx(0.01, rel=0.2)
        assert after < before / 5
        measured = np.median(index(out.dn.values[part]))
        assert measured < before / 5
        assert measured == pytest.approx(after, rel=0.3, abs=2e-4)
        assert effect[detector]["striped"] == effect[detector]["bands"] == 30


def test_leaves_clean_columns_bit_for_bit():
    light = ground()
    made = np.ones((60, 128))
    rng = np.random.default_rng(5)
    hit = rng.random(made.shape) < 0.1
    made[hit] += rng.choice([-0.03, 0.03], hit.sum())
    dn = np.rint(noisy(light) * made[:, None]).astype("int16")
    out = destripe(scene_of(dn)).dn.values
    changed = (out != dn).any(axis=1)
    assert changed[hit].mean() > 0.99
    assert changed[~hit].mean() < 0.1
    # Of the few clean ones that change, most do so by less than a pixel's noise, 0.3 %.
    change = np.abs(out.sum(1) / dn.sum(1) - 1)
    assert np.quantile(change[~hit], 0.98) < 0.003
    assert np.quantile(np.abs(change[hit] - 0.03), 0.95) < 0.006


def test_a_clean_scene_stays_as_it_is():
    dn = np.rint(noisy(ground(texture=0.2))).astype("int16")
    out = destripe(scene_of(dn))
    assert (out.dn.values != dn).any(axis=1).mean() < 0.02
    assert out.attrs["steps"][-1]["effect"]["VNIR"]["striped"] == 0


def test_keeps_what_is_no_measurement_of_a_good_detector():
    dn, *_ = striped_scene()
    flags = np.zeros(dn.shape, "u1")
    dn[:, :, :3] = 0  # a border
    dn[4, 50, 60], flags[4, 50, 60] = -32767, 4
    dn[5, 60:64, 70], flags[5, 60:64, 70] = 32767, 1
    dn[6, :, 80], flags[6, :, 80] = 0, 2
    dn[7, :, 81], flags[7, :, 81] = 1234, 3
    dn[7, :, 82], flags[7, :, 82] = 1234, 3  # two side by side
    out = destripe(detectors(scene_of(dn, flags=flags)))
    kept = (dn <= 0) | (flags > 0)
    np.testing.assert_array_equal(out.dn.values[kept], dn[kept])
    assert (out.dn.values != dn)[~kept].mean() > 0.5
    good = np.r_[0:4, 8:30]
    assert np.median(index(out.dn.values[good][..., 3:80])) < 0.002


def test_saturated_samples_of_a_product_without_flags_are_as_flagged_ones():
    dn, *_ = striped_scene(texture=0.05)
    dn[4, 50:70, 60], dn[40, 20:30, 30:50], dn[50, 0, 0] = 4095, 4095, 4096
    full = dn >= 4095
    flagged = destripe(scene_of(dn, flags=full.astype("u1")))
    out = destripe(scene_of(dn, sensor="ahsi"))
    np.testing.assert_array_equal(out.dn, flagged.dn)
    assert out.attrs["steps"][-1]["effect"] == flagged.attrs["steps"][-1]["effect"]
    again = destripe(out.assign(dn=out.dn.where(~full, 4000)), threshold=0.1)
    np.testing.assert_array_equal(again.dn.values[full], 4000)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("rows", [64, 320])
def test_a_cloud_does_not_switch_the_correction_off(width, rows):
    dn, _, made = striped_scene(0.01, texture=0.05, rows=320)
    dn[10:25, 64:128, 20 : 20 + width] = 4095
    dn[40] = 4095  # one band that is full all over
    scene = scene_of(dn, sensor="ahsi")
    scene["dn"] = scene.dn.chunk(y=rows)
    out = destripe(scene).dn.values
    np.testing.assert_array_equal(out[dn == 4095], 4095)
    clear = slice(128, 320)
    left = np.log(made) - np.log(dn[:, clear].sum(1) / out[:, clear].sum(1))
    left -= left.mean(1, keepdims=True)
    assert np.delete(left, 40, 0).std() < 0.01 / 3
    assert left[10:25].std() < 0.01 / 3
    assert left[40].std() == pytest.approx(np.log(made[40]).std(), rel=1e-6)


def test_is_lazy_after_the_one_pass_and_keeps_dtype_chunks_and_input():
    dn, *_ = striped_scene()
    scene = scene_of(dn)
    out = destripe(scene)
    assert (out.dn.dtype, out.dn.chunks) == (scene.dn.dtype, scene.dn.chunks)
    assert scene.attrs["steps"] == []
    with dask.config.set(scheduler=never_compute), pytest.raises(AssertionError):
        out.dn.compute()  # the pixels are not in memory
    np.testing.assert_array_equal(scene.dn.values, dn)


def test_the_chunks_do_not_matter():
    dn, *_ = striped_scene(rows=256)
    outs = [destripe(scene_of(dn, chunk=chunk)).dn.values for chunk in (64, 128, 256)]
    # Differences along track are not taken across chunks, so that the ground's share differs a bit.
    for out in outs[:2]:
        assert (out.sum(1) / outs[2].sum(1) - 1).std() < 0.001


def test_map_products_pass():
    dn, *_ = striped_scene()
    out = destripe(scene_of(dn, crs="EPSG:32633"))
    np.testing.assert_array_equal(out.dn, dn)
    step = out.attrs["steps"][-1]
    assert (step["applied"], step["why"]) == (False, "map geometry: columns are no detectors")


def test_uint16_and_its_range():
    light = ground(texture=0.05) * 30
    dn = np.clip(light * gains(60, 128, 0.02)[:, None], 0, 65535).astype("uint16")
    dn[3, 100] = 65535
    out = destripe(scene_of(dn, sensor="enmap"))
    assert out.dn.dtype == "uint16"
    assert out.dn.values[3, 100].min() > 55000  # none has wrapped round
    assert out.attrs["steps"][-1]["effect"]["VNIR"]["at_range"] > 0


def test_negative_counts_are_legal():
    dn, *_ = striped_scene()
    dn[:, ::50, ::9] = -40
    out = destripe(scene_of(dn)).dn.values
    assert np.abs(out[:, ::50, ::9] + 40).max() <= 2


def coast(light, column):
    """Water beside land, the border along a column."""
    light = light.copy()
    water = 0.9 * np.exp(-4 * np.linspace(0, 1, len(light)))
    light[:, :, :column] *= 0.2 * water[:, None, None]
    return light * 3


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_a_coast_along_track_stays(spread):
    light = coast(ground(), 64)
    dn = np.rint(noisy(light) * gains(60, 128, spread)[:, None]).astype("int16")
    out = destripe(scene_of(dn))
    ratio = out.dn.values.sum(1) / np.maximum(light.sum(1), 1)
    # Columns beside the coast are as near to the truth as those elsewhere.
    beside = np.abs(np.log(ratio[:40, [62, 63, 64, 65]])).max()
    assert beside < (0.012 if spread else 0.004)
    assert all(e["boundaries"] >= 1 for e in out.attrs["steps"][-1]["effect"].values())


def test_a_narrow_bright_road_along_a_column_stays():
    light = ground(texture=0.1)
    road = 1.5 + 0.5 * np.linspace(0, 1, 60)
    light[:, :, 40] = 2000 * road[:, None]
    dn = np.rint(noisy(light)).astype("int16")
    out = destripe(scene_of(dn)).dn.values
    assert np.abs(out[:, :, 38:43].sum(1) / dn[:, :, 38:43].sum(1) - 1).max() < 0.005


def test_a_steep_gradient_across_track_stays():
    light = ground(texture=0.05) * np.linspace(0.3, 3, 128)
    made = gains(60, 128, 0.01)
    dn = np.rint(noisy(light) * made[:, None]).astype("int16")
    out = destripe(scene_of(dn)).dn.values
    left = out.sum(1) / noisy(light).sum(1) - 1
    assert left.std() < 0.004
    assert np.abs(left.mean(axis=0)).max() < 0.004


def test_arrays_of_floats_are_not_rounded_and_nan_stays_where_it_was():
    values = noisy(ground(20) * gains(20, 128, 0.01)[:, None]) / 10000
    values[7] = np.nan
    valid = np.ones((192, 128), bool)
    valid[:5] = False
    out, found = destripe_array(values, valid)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))
    np.testing.assert_array_equal(out[:, :5], values[:, :5])
    assert (found[7] == 1).all()
    keep = np.delete(np.arange(20), 7)
    assert np.median(stripe_index(out, valid)[keep]) < 0.002


def test_apply_gains_rounds_and_clips():
    dn = np.array([[[100, 30000]], [[-100, 7]]], "int16")
    gain = np.array([[1.03, 0.5], [1.03, 1.0]])
    out = apply_gains(dn, gain, untouched=np.zeros(dn.shape, bool))
    np.testing.assert_array_equal(out, [[[97, 32767]], [[-97, 7]]])


def test_synthetic_l1r_approaches_its_truth(tmp_path):
    (product,) = write_products(tmp_path, scenes=1, seed=3, first=2)
    scene = detectors(open_scene(tmp_path / product["path"]))
    after = destripe(scene)
    truth = np.load(next((tmp_path / "truth").glob("*.npz")))
    light = truth["reflectance"].T @ truth["abundance"].astype("f4").reshape(12, -1)
    light *= (truth["cosine"] * truth["irradiance"] * truth["transmittance"])[:, None]
    light = (light + truth["path"][:, None]).reshape(242, *truth["valid"].shape)
    dn = (light - truth["offset"][:, None, None]) / truth["gain"][:, None, None]
    rows = (scene.flags.values == 0).sum(axis=(0, 2)) > scene.dn[:, 0].size * 0.9
    bright = truth["live"] & (np.median(dn, axis=(1, 2)) > 500)
    good = ~scene.bad_detector.values & bright[:, None]

    def error(values):
        off = np.log(np.maximum(values[:, rows].sum(1), 1) / dn[:, rows].sum(1).clip(1))
        # The smile goes slowly across track; what is left beside it is stripes.
        slow = np.apply_along_axis(lambda row: np.convolve(row, np.ones(9) / 9, "same"), 1, off)
        left = (off - slow)[:, 8:-8][good[:, 8:-8]]
        return 1.4826 * np.median(np.abs(left))

    before, left = error(scene.dn.values), error(after.dn.values)
    assert before > 0.005
    assert left < before / 3


@pytest.mark.skipif(not L1R.exists(), reason=f"no {L1R}")
def test_the_stripe_index_of_the_real_l1r_falls_by_five():
    scene = detectors(open_scene(L1R))
    out = destripe(scene)
    before, after = scene.dn.values, out.dn.values
    bad = scene.bad_detector.values
    good = np.ones(before.shape[1:], bool)
    good[:, bad.any(axis=0)] = False
    effect = out.attrs["steps"][-1]["effect"]
    for detector in ("VNIR", "SWIR"):
        part = scene.detector.values == detector
        old, new = stripe_index(before[part], good), stripe_index(after[part], good)
        level = np.median(before[part], axis=(1, 2))
        # Of stripes of 0.4 %, integers show half a count or more from level 125 on.
        striped = (old > 0.003) & (old * level > 0.5)
        assert striped.sum() >= effect[detector]["bands"] * 0.6
        assert np.median(old[striped]) > 5 * np.median(new[striped])
        assert old[striped].mean() > 5 * new[striped].mean()
        assert effect[detector]["stripe_index"][0] > 5 * effect[detector]["stripe_index"][1]
    # Bit for bit outside: bad detectors, flags, nodata, and whole columns that are clean.
    kept = (scene.flags.values > 0) | (before == 0) | bad[:, None]
    np.testing.assert_array_equal(after[kept], before[kept])


@pytest.mark.skipif(not (L1R.exists() and L1T.exists()), reason=f"no {L1R} or {L1T}")
def test_the_real_l1r_comes_nearer_to_the_same_ground_without_stripes():
    # The L1T product has the same pixels without stripes, each line moved along itself.
    scene = detectors(open_scene(L1R))
    before, after = scene.dn.values, destripe(scene).dn.values
    maps = open_scene(L1T).dn.values
    start = (maps[7:57] != 0).any(axis=0).argmax(axis=1)
    truth = np.stack([maps[:, y, x : x + 256] for y, x in enumerate(start)], axis=1)
    good = ~scene.bad_detector.values & (np.median(truth, axis=(1, 2)) > 500)[:, None]
    means = truth.mean(axis=1)[good]
    off_before = before.mean(axis=1)[good] / means - 1
    off_after = after.mean(axis=1)[good] / means - 1
    assert off_before.std() > 2 * off_after.std()
    # Columns that were clean, within the noise of a pixel (0.3 %), change by less than that noise.
    clean = np.abs(off_before) < 0.0005
    change = np.abs(after.mean(axis=1)[good] / before.mean(axis=1)[good] - 1)
    assert np.quantile(change[clean], 0.95) < 0.003
    assert (change[clean] == 0).mean() > 0.6


@pytest.mark.skipif(not SALTON.exists(), reason=f"no {SALTON}")
def test_bad_bands_of_salton_spread_into_no_other():
    from scipy.io import loadmat

    content = loadmat(SALTON)
    cube = max((v for v in content.values() if getattr(v, "ndim", 0) == 3), key=np.size)
    values = np.moveaxis(cube, -1, 0)
    bad = np.isnan(values).all(axis=(1, 2))
    assert bad.sum() == 20
    valid = np.isfinite(values[~bad]).all(axis=0)
    out, gain = destripe_array(values, valid)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))
    without, gain_without = destripe_array(values[~bad], valid)
    np.testing.assert_allclose(out[~bad], without, rtol=1e-9)
    np.testing.assert_allclose(gain[~bad], gain_without, rtol=1e-9)
    assert (gain[bad] == 1).all()


@pytest.mark.parametrize("rows", [40, 70])
def test_noise_of_more_bands_than_rows_is_no_stripe(rows):
    rng = np.random.default_rng(3)
    values = 2000 * (1 + 0.3 * rng.standard_normal((145, rows, 130)))
    out, gain = destripe_array(values, np.ones((rows, 130), bool))
    assert (gain == 1).mean() > 0.999
    assert (out == values).mean() > 0.999
