import numpy as np
import pytest

from hypersigma.cubes.cube import check_bands, new_cube


def test_what_is_not_measured_is_not_valid():
    x = np.ones((4, 5, 6))
    x[0, 0, 2], x[1, 1], x[:, :, 5] = np.nan, 0, np.nan
    cube = new_cube(x, wavelength=np.arange(400, 460, 10.0), scale=4.0)
    assert np.argwhere(~cube.valid_HW).tolist() == [[0, 0], [1, 1]]
    with pytest.raises(
        ValueError, match=r"6 bands, got none in 1 of them; say leave_out: \[\[6, 6\]\]"
    ):
        check_bands(cube)
    with pytest.raises(ValueError, match=r"say leave_out: \[\[1, 2\], \[6, 6\]\]"):
        check_bands(cube.without_bands([0, 1]))
    kept = cube.without_bands([5])
    check_bands(kept)
    assert kept.wavelength.tolist() == [400, 410, 420, 430, 440]
    assert kept.source["bands_left_out"] == [6]
    image = kept.physical_CHW()
    assert (image.shape, image.dtype) == ((5, 4, 5), np.float32)
    assert image[:, 0, 0].tolist() == [0] * 5
    assert image[0, 2, 2] == 0.25


def test_nodata_is_no_measurement_also_behind_bands_that_are_left_out():
    x = np.ones((4, 5, 6), np.int16)
    x[0, 0], x[1, 1, 2], x[2, 2, 3], x[:, :, 5] = -9999, -9999, 0, -9999
    cube = new_cube(x, nodata=-9999)
    with pytest.raises(ValueError, match=r"none in 1 of them; say leave_out: \[\[6, 6\]\]"):
        check_bands(cube)
    for one in (cube, cube.without_bands([5])):
        assert np.argwhere(~one.valid_HW).tolist() == [[0, 0], [1, 1]]
    assert np.argwhere(~cube.without_bands([2, 5]).valid_HW).tolist() == [[0, 0]]
    # A dark band may measure 0.
    assert np.argwhere(~new_cube(np.where(x < 0, 0, x), nodata=0).valid_HW).tolist() == [[0, 0]]


def test_what_is_no_cube_is_refused():
    with pytest.raises(ValueError, match="each of 6 bands, got 5"):
        new_cube(np.ones((4, 5, 6)), wavelength=np.ones(5))
    with pytest.raises(ValueError, match=r"rows, columns, bands\), got float64 \(4, 5\)"):
        new_cube(np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"0\.\.5 to leave out, got \[6\]"):
        new_cube(np.ones((4, 5, 6))).without_bands([6])
    with pytest.raises(ValueError, match="got none of 20"):
        check_bands(new_cube(np.zeros((4, 5, 6))))
