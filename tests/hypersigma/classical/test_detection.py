import numpy as np
import pytest
import scipy.io
from scipy.spatial.distance import mahalanobis

from hypersigma.classical.detection import ace, cem, local_rx, rx, sam, smf
from hypersigma.metrics import detection_report
from tests.hypersigma.classical.real import DATA


def image(seed=0, shape=(6, 14, 15)):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(shape[0], shape[0]))
    return np.tensordot(mixing, rng.normal(size=shape), 1) + 5


def pixels(cube):
    return cube.reshape(len(cube), -1).T


def test_rx_is_the_distance_by_the_covariance():
    cube = image()
    x = pixels(cube)
    inverse = np.linalg.inv(np.cov(x.T, bias=True))
    wanted = [mahalanobis(pixel, x.mean(0), inverse) ** 2 for pixel in x]
    np.testing.assert_allclose(rx(cube).ravel(), wanted, rtol=1e-3)
    assert rx(cube).mean() == pytest.approx(len(cube), rel=1e-4)


def test_local_rx_is_the_same_of_the_ring_around():
    cube = image()
    found = local_rx(cube, inner=3, outer=9)
    ring = np.pad(np.zeros((3, 3), bool), 3, constant_values=True)
    around = cube[:, 3:12, 2:11][:, ring]
    spread = np.cov(around, bias=True)
    spread += 1e-2 * np.trace(spread) / len(cube) * np.eye(len(cube))
    wanted = mahalanobis(cube[:, 7, 6], around.mean(1), np.linalg.inv(spread)) ** 2
    assert found[7, 6] == pytest.approx(wanted)


def test_a_pixel_on_still_ground_is_unlike_it():
    cube = np.full((6, 14, 15), 3.0)
    assert not local_rx(cube, inner=3, outer=9).any()
    cube[:, 7, 6] += np.arange(6)
    found = local_rx(cube, inner=3, outer=9)
    assert np.isfinite(found).all()
    assert np.unravel_index(found.argmax(), found.shape) == (7, 6)


def test_cem_lets_the_target_through_and_least_of_all_else():
    cube, target = image(), np.arange(6.0)
    x = pixels(cube)
    found = cem(np.concatenate((cube, target[:, None, None] + 0 * cube[:, :1]), 1), target)
    np.testing.assert_allclose(found[-1], 1)
    power = np.square(cem(cube, target)).mean()
    rng = np.random.default_rng(1)
    for _ in range(50):
        other = rng.normal(size=6)
        other /= other @ target  # also lets the target through
        assert np.square(x @ other).mean() > power * (1 - 1e-3)


def test_a_matched_filter_is_0_at_the_mean_and_1_at_the_target():
    cube, target = image(), 5 + np.arange(6.0)
    cube[:, 0, 0], cube[:, 0, 1] = target, 0
    cube[:, 0, 1] = cube.mean((1, 2)) * cube[0].size / (cube[0].size - 1)
    found = smf(cube, target)
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(0, abs=1e-9)


def test_ace_is_a_cosine_where_the_background_is_white():
    cube, target = image(), 5 + np.arange(6.0)
    x = pixels(cube)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    whiten = vectors / np.sqrt(values)
    a, b = (x - x.mean(0)) @ whiten, (target - x.mean(0)) @ whiten
    wanted = a @ b / np.linalg.norm(a, axis=1) / np.linalg.norm(b)
    np.testing.assert_allclose(ace(cube, target).ravel(), wanted, atol=1e-3)


def test_sam_is_a_cosine_and_pixels_of_zeros_have_none():
    cube, target = image(), np.ones(6)
    cube[:, 2, 3] = 0
    found = sam(cube, target)
    assert found[2, 3] == 0
    x = cube[:, 4, 4]
    assert found[4, 4] == pytest.approx(x.sum() / np.linalg.norm(x) / np.sqrt(6))


@pytest.mark.parametrize("detector", [sam, cem, smf, ace])
def test_a_target_of_other_bands_is_refused(detector):
    with pytest.raises(ValueError, match=r"image's 6 bands, got \(5,\); resample"):
        detector(image(), np.ones(5))


def test_what_cannot_be_is_refused():
    cube = image()
    with pytest.raises(ValueError, match="expected odd windows"):
        local_rx(cube, inner=4, outer=9)
    with pytest.raises(ValueError, match="14 x 15, got 29"):
        local_rx(cube, inner=3, outer=29)
    cube[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"others in bands \[3\]"):
        rx(cube)


@pytest.mark.skipif(DATA is None, reason="needs the measured scenes")
@pytest.mark.parametrize("name", ["abu-airport-1", "abu-urban-1", "hydice"])
def test_anomalies_of_measured_scenes_are_found(name):
    scene = scipy.io.loadmat(DATA / "abu" / f"{name}.mat")
    cube, target = scene["data"].astype("f8").transpose(2, 0, 1), scene["map"].astype(bool)
    assert detection_report(rx(cube), target)["auc_d_f"] > 0.8
    spectrum = cube[:, target].mean(1)
    found = {one.__name__: detection_report(one(cube, spectrum), target)["auc_d_f"]
             for one in (sam, cem, smf, ace)}  # fmt: skip
    assert min(found[name] for name in ("cem", "smf", "ace")) > 0.9, found
