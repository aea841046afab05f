"""The parts of dense tasks against formulas by hand."""

import numpy as np
import pytest
import torch

from hypersigma.classical.detection import rx
from hypersigma.cubes.cube import new_cube
from hypersigma.tasks.checks import spectrum_of
from hypersigma.tasks.crops import UNKNOWN, crop_batches
from hypersigma.tasks.dense import blended, cells, cut, mirrored
from hypersigma.tasks.implants import implanted
from hypersigma.tasks.labelled import PixelClassifier
from hypersigma.tasks.smoothing import FIRST_SPREAD, Smooth
from hypersigma.tasks.target_detection import from_library
from hypersigma.tasks.whitening import Whiten, fit_whiten


@pytest.mark.parametrize("sides", [(20, 33), (7, 5), (16, 16)])
@pytest.mark.parametrize("overlap", [0, 3, 8])
def test_blending_gives_back_what_windows_agree_on(sides, overlap):
    image = torch.randn(3, *sides)
    found = blended(lambda x: 2 * x, image, window=16, overlap=overlap, batch_size=3)
    torch.testing.assert_close(found, 2 * image)


def test_blending_weighs_by_the_distance_to_the_windows_sides():
    # The answers of a window are its number: 0, 1, 2, 3 in the order of places.
    numbers = iter(range(4))
    run = lambda x: torch.stack([torch.full((1, 4, 4), float(next(numbers))) for _ in x])  # noqa: E731
    found = blended(run, torch.zeros(1, 6, 6), window=4, overlap=2)[0]
    weight = np.array([0.25, 0.75, 0.75, 0.25])
    first, second = weight[2:], weight[:2]
    torch.testing.assert_close(found[0, 2:4].double(), torch.tensor(second / (first + second)))
    assert found[0, 0] == 0
    assert found[5, 5] == 3


def test_an_image_beyond_its_border_is_mirrored():
    image = np.arange(12.0).reshape(1, 3, 4)
    padded = np.pad(image, [(0, 0), (0, 5), (0, 6)], "symmetric")
    np.testing.assert_array_equal(cut(torch.from_numpy(image), 0, 1, 8).numpy(), padded[:, :, 1:9])
    np.testing.assert_array_equal(mirrored(np.arange(-3, 3), 3), [2, 1, 0, 0, 1, 2])


def test_cells_are_the_patches_row_by_row():
    image = torch.randn(2, 3, 8, 12)
    found = cells(image, 4)
    assert found.shape == (12, 3, 4, 4)
    torch.testing.assert_close(found[6 + 4], image[1, :, 4:8, 4:8])


def test_smoothing_is_a_weighted_mean_of_neighbours_inside():
    smooth = Smooth(2, 2)
    with torch.no_grad():
        smooth.guide.weight.normal_()
    answers, features = torch.randn(1, 3, 6, 5), torch.randn(1, 2, 6, 5)
    found = smooth(answers, features).detach()
    guide = smooth.guide(features).detach()[0]
    row, column = 1, 4
    total, weights = torch.zeros(3), 0.0
    for y in range(4):
        for x in range(2, 5):
            away = (y - row) ** 2 + (x - column) ** 2
            unlike = (guide[:, y, x] - guide[:, row, column]).square().sum()
            weight = torch.exp(-0.5 * (away / FIRST_SPREAD**2 + unlike)).item()
            total += weight * answers[0, :, y, x]
            weights += weight
    torch.testing.assert_close(found[0, :, row, column], total / weights)


def test_classes_weigh_the_same_in_the_loss():
    logits = torch.randn(2, 3, 4, 4)
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0, 0], target[1, 2, 2], target[1] = 1, UNKNOWN, UNKNOWN
    each = -logits.log_softmax(1)
    zeros = each[0, 0].flatten()[1:].mean()
    expected = (zeros + each[0, 1, 0, 0]) / 2
    loss = PixelClassifier.loss(None, logits, target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(PixelClassifier.loss(None, logits.repeat(2, 1, 1, 1), target), loss)


def test_batches_go_on_from_a_state_and_hold_a_target():
    image, target = torch.randn(2, 12, 15), np.full((12, 15), UNKNOWN)
    target[2, 3], target[9, 14], target[9, 13] = 0, 1, 1
    make = lambda state: crop_batches(image, target, state, window=8, batch_size=3, seed=4)  # noqa: E731
    batches = make(None)
    first, state = next(batches)
    second, _ = next(batches)
    again, _ = next(make(state))
    assert again.ids == second.ids != first.ids
    torch.testing.assert_close(again.x, second.x)
    assert (second.target >= 0).flatten(1).any(1).all()


def test_a_window_and_its_targets_turn_together():
    target = np.arange(64).reshape(8, 8)
    image = torch.from_numpy(target[None].astype("f4"))
    batch, _ = next(crop_batches(image, target, None, window=8, batch_size=9, seed=0))
    torch.testing.assert_close(batch.x[:, 0].long(), batch.target)
    assert not (batch.target == batch.target[0]).all()


def test_known_targets_are_mixed_in():
    x = torch.rand(4, 5, 16, 16)
    out, hit = implanted(x, 3, 4, torch.Generator().manual_seed(0), torch.full((5,), 9.0))
    torch.testing.assert_close(out.movedim(1, -1)[~hit], x.movedim(1, -1)[~hit])
    assert hit.flatten(1).any(1).all()
    # Nearer to the target than before, by the share that is filled.
    assert (out.movedim(1, -1)[hit] > x.movedim(1, -1)[hit]).all()
    assert hit.sum() <= 4 * 3 * 16


def test_whitened_length_is_rx_where_nothing_is_noise():
    rng = np.random.default_rng(0)
    small = rng.normal(size=(4, 20, 20))
    flat = np.kron(small, np.ones((1, 40, 40))).astype("f4")
    whiten = fit_whiten(torch.from_numpy(flat))
    found = whiten(torch.from_numpy(flat)[None])[0].square().sum(0).numpy()
    # A fortieth of the neighbours differ, each by a variance of 2, of which half counts as noise.
    np.testing.assert_allclose(found, rx(flat) * (1 - 1 / 40) ** 2, rtol=0.03)


def test_noise_gets_little_weight_beside_signal():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(1, 80, 80)).cumsum(1).cumsum(2)
    noise = rng.normal(size=(3, 80, 80))
    image = torch.from_numpy(np.concatenate((signal, noise)).astype("f4"))
    lengths = fit_whiten(image)(image[None])[0].square().mean((1, 2)).sqrt()
    assert lengths[0] == pytest.approx(1, abs=0.05)
    assert (lengths[1:] < 0.1).all()


def test_an_unfitted_whitening_leaves_spectra_and_hides_gaps():
    x = torch.tensor([[1.0, float("nan")]]).view(1, 2, 1, 1)
    torch.testing.assert_close(Whiten(2)(x).flatten(), torch.tensor([1.0, 0.0]))


def test_a_library_spectrum_comes_to_the_cubes_bands(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("wavelength,reflectance\n700,0.3\n500,0.1\n600,0.2\n")
    np.testing.assert_allclose(from_library(path, np.array([500.0, 650])), [0.1, 0.25])
    with pytest.raises(ValueError, match=r"450-650 nm, got 500-700"):
        from_library(path, np.array([450.0, 650]))
    with pytest.raises(ValueError, match="a cube with wavelengths"):
        from_library(path, None)


def test_a_target_spectrum_of_another_length_is_refused():
    cube = new_cube(np.ones((2, 2, 5)))
    with pytest.raises(ValueError, match=r"5 bands of .*got \(4,\)"):
        spectrum_of(np.ones(4), cube, where="benchmark")
    with pytest.raises(ValueError, match="1 others"):
        spectrum_of(np.array([1, 1, np.nan, 1, 1]), cube, where="benchmark")
