import numpy as np

from pipeline.qa.representatives import representatives

ALL = np.ones(5, bool)


def groups(count=60, seed=0):
    """Three groups of spectra (3 * count, 5), about 0.1, 0.4 and 0.8."""
    rng = np.random.default_rng(seed)
    level = np.repeat([0.1, 0.4, 0.8], count)[:, None]
    return (level + 0.01 * rng.standard_normal((3 * count, 5))).astype("float32")


def test_one_pixel_of_each_group_the_brightest_first():
    spectra = groups()
    chosen, share = representatives(spectra, ALL, number=3)
    np.testing.assert_array_equal(chosen // 60, [2, 1, 0])
    np.testing.assert_allclose(share, 1 / 3)
    np.testing.assert_array_equal(representatives(spectra, ALL, number=3)[0], chosen)


def test_a_spectrum_with_holes_stands_for_none():
    spectra = groups()
    spectra[::20, 2] = np.nan
    spectra[:, 4] = np.nan  # a dead band is left out instead
    chosen, _ = representatives(spectra, ALL)
    assert (chosen % 20 != 0).all()
    spectra[:, 2] = np.nan
    assert len(representatives(spectra[:1], ALL)[0]) == 1


def test_bands_that_are_not_trusted_do_not_count():
    spectra = groups()
    loud = spectra.copy()
    loud[:, 0] = np.random.default_rng(1).normal(0, 1000, len(loud))
    trusted = ALL.copy()
    trusted[0] = False
    chosen, _ = representatives(loud, trusted, number=3)
    np.testing.assert_array_equal(chosen // 60, [2, 1, 0])


def test_no_more_pixels_than_differ():
    assert len(representatives(np.ones((20, 5), "float32"), ALL)[0]) == 1
    assert len(representatives(np.zeros((0, 5), "float32"), ALL)[0]) == 0
    assert len(representatives(np.full((4, 5), np.nan, "float32"), ALL)[0]) == 0
