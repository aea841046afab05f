"""What was learnt of some bands, applied to others."""

import numpy as np
import pytest
import torch

from hypersigma.backbones.loading import load_encoder
from hypersigma.backbones.spatial import spatial
from hypersigma.bands import band_matrix, map_bands, mix_bands

RNG = np.random.default_rng(0)
COUNTS = [48, 175, 224, 330]


def grid(first, last, count, jitter=1.0):
    """Return band centres [nm], a little uneven, as those of a sensor are."""
    inner = RNG.uniform(-jitter, jitter, count) * (np.arange(count) % (count - 1) > 0)
    return np.linspace(first, last, count) + inner


def spectrum(wavelength):
    """Return something smooth with a feature 150 nm wide."""
    return np.sin(wavelength / 180) + 0.5 * np.exp(-(((wavelength - 1200) / 150) ** 2))


def state(bands):
    """Return a pretrained spatial encoder whose kernels are anything but smooth over bands."""
    model = spatial("tiny", in_chans=bands, img_size=8, patch_size=4)
    torch.nn.init.normal_(model.patch_embed.proj.weight)
    return model.state_dict()


def tokens(weights, seen, wavelength, values):
    """Return what an encoder for `wavelength` makes of one flat picture of a spectrum."""
    model = spatial("tiny", in_chans=len(wavelength), img_size=8, patch_size=4)
    report = load_encoder(model, weights, seen=seen, bands=wavelength.tolist())
    picture = torch.tensor(values, dtype=torch.float32)[None, :, None, None].expand(-1, -1, 8, 8)
    return model.patch_embed(picture)[0].detach(), report


@pytest.mark.parametrize("count", COUNTS)
def test_a_smooth_spectrum_has_nearly_the_same_tokens_in_other_bands(count):
    old, new = grid(430, 2400, 100), grid(430, 2400, count)
    weights = state(100)
    expected, _ = tokens(weights, [old], old, spectrum(old))
    got, report = tokens(weights, [old], new, spectrum(new))
    assert (got - expected).abs().max() < 0.01 * expected.abs().max()
    assert report.bands == (
        f"100 bands to {count} at 430-2400 nm by wavelength (seen at 430-2400 nm)"
    )
    assert f"patch_embed.proj.weight: (64, 100, 4, 4) -> (64, {count}, 4, 4)" in report.resized


@pytest.mark.parametrize("count", COUNTS)
def test_a_flat_spectrum_has_the_same_tokens(count):
    old, new = grid(430, 2400, 100, 5), grid(425, 2410, count, 2)
    weights = state(100)
    expected, _ = tokens(weights, [old], old, np.ones(100))
    got, _ = tokens(weights, [old], new, np.ones(count))
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("count", COUNTS)
def test_windows_that_slid_over_a_sensor_apply_to_any_range(count):
    """Number k of a window stands for a place in it, wherever the window is."""
    sensor = np.linspace(430, 2400, 198)
    weights = state(100)
    for start in (0, 40, 98):
        window = sensor[start : start + 100]
        new = grid(window[0], window[-1], count, 0.5)
        expected, report = tokens(weights, [sensor], window, spectrum(window))
        assert not report.bands
        got, report = tokens(weights, [sensor], new, spectrum(new))
        assert (got - expected).abs().max() < 0.01 * expected.abs().max()
        assert "by their place in the window (seen in windows of 100 anywhere)" in report.bands


def test_platforms_a_little_apart_are_one_set_of_bands():
    old = np.linspace(430, 2400, 100)
    found = map_bands([old, old + 3], 100, grid(500, 2300, 90))
    assert "by wavelength (seen at 430-2403 nm)" in found.words


def test_the_same_bands_keep_the_same_weights():
    old = grid(430, 2400, 100)
    weights = state(100)
    for seen, data in [([old], old + 0.9), ([np.r_[old, 2500.0]], old)]:
        model = spatial("tiny", in_chans=100, img_size=8, patch_size=4)
        report = load_encoder(model, weights, seen=seen, bands=data.tolist())
        assert not report.bands
        assert "patch_embed.proj.weight" in report.loaded
        kernel = model.patch_embed.proj.weight
        assert torch.equal(kernel, weights["patch_embed.proj.weight"])


def test_the_same_number_of_other_bands_is_not_loaded_as_it_is():
    old = grid(430, 2400, 20)
    model = spatial("tiny", in_chans=20, img_size=8, patch_size=4)
    report = load_encoder(model, state(20), seen=[old], bands=(old + 40).tolist())
    assert report.bands
    assert "patch_embed.proj.weight" not in report.loaded
    assert "patch_embed.proj.weight: (64, 20, 4, 4) -> (64, 20, 4, 4)" in report.resized


def test_without_wavelengths_bands_go_by_their_order_and_the_report_says_so():
    model = spatial("tiny", in_chans=48, img_size=8, patch_size=4)
    report = load_encoder(model, state(100))
    assert report.bands == "100 bands to 48 by their order: wavelengths are not known"
    assert f"bands: {report.bands}" in str(report)


def test_what_the_data_do_not_reach_counts_as_missing_and_is_said():
    old, new = np.arange(400, 2400, 20.0), np.arange(400, 1000, 10.0)
    found = map_bands([old], 100, new)
    assert "69 of the 100 are beyond the data and count as missing" in found.words
    # The last band stands in for what is one step beyond it, and for nothing else.
    assert found.matrix.sum(1).tolist() == [1.0] * 31 + [0.0] * 69
    assert found.matrix.max() == 1
    wide = map_bands([new], 60, old)
    assert "69 of the data's get weight 0" in wide.words
    assert wide.matrix.sum(1).tolist() == [1.0] * 60
    with pytest.raises(ValueError, match=r"expected bands within 400-990 nm, .* got 2000-2100 nm"):
        map_bands([new], 60, np.arange(2000, 2101, 10.0))
    with pytest.raises(ValueError, match=r"at least 99 bands, got \[60\]"):
        map_bands([new], 99, old)


def test_a_matrix_is_exact_for_lines_between_bands_and_the_identity_for_the_same():
    for count in (1, 2, 48, 330):
        old, new = grid(500, 2300, 100), grid(430, 2400, count) if count > 1 else np.ones(1)
        assert torch.equal(band_matrix(new, new), torch.eye(count))
        if count == 48:
            kinked = RNG.normal(size=48)
            expected = np.interp(old, new, kinked)
            np.testing.assert_allclose(band_matrix(old, new).numpy() @ kinked, expected, atol=1e-5)
    even = np.linspace(430, 2400, 330)
    np.testing.assert_allclose(band_matrix(old, even).numpy() @ even, old, rtol=1e-5)


def test_narrow_bands_are_averaged():
    """The noise of three bands in the place of one is less than that of one of them."""
    matrix = band_matrix(np.linspace(430, 2400, 100), np.linspace(430, 2400, 298))
    assert matrix[1:-1].square().sum(1).max() < 0.4
    assert (matrix.sum(0) > 0).all()


def test_overlapping_detectors_need_no_order():
    detectors = np.r_[np.arange(400, 1030, 5.0), np.arange(1001.5, 2500, 9.0)]
    assert torch.equal(band_matrix(detectors, detectors), torch.eye(len(detectors)))
    smooth = band_matrix(np.linspace(420, 2480, 100), detectors).numpy() @ spectrum(detectors)
    np.testing.assert_allclose(smooth, spectrum(np.linspace(420, 2480, 100)), atol=0.01)


def test_mixed_spectra_leave_out_what_is_no_measurement():
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    stored = torch.tensor([[10, 0], [20, 40], [30, -32767]], dtype=torch.int16)[:, :, None]
    mixed = mix_bands(stored, matrix)
    assert mixed.shape == (2, 2, 1)
    assert mixed[:, 0, 0].tolist() == [15.0, 27.5]
    assert mixed[0, 1, 0] == 40  # half of it was measured
    assert mixed[1, 1, 0].isnan()


def test_a_model_of_one_band_and_data_of_one_wavelength_have_no_window_to_place_in():
    seen = [np.linspace(400, 2500, 50)]
    for count, data in ((1, [1400.0, 1450.0, 1500.0]), (10, [1450.0, 1450.0])):
        matrix = map_bands(seen, count, data).matrix
        assert matrix.isfinite().all()
        assert matrix.any()
