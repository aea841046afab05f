import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from rasterio.transform import from_origin

from hypersigma.cubes.axes import arrange
from hypersigma.cubes.readers import read_array, read_cube

CUBE = np.random.default_rng(0).integers(1, 900, (5, 7, 11)).astype("u2")
CENTRES = np.linspace(0.4, 2.5, 11)


def matlab_73(path, **arrays):
    """Write as MATLAB does: axes reversed, behind 512 bytes of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


def test_matlab_of_both_kinds_gives_the_same_cube(tmp_path):
    arrays = {"img": CUBE, "map": CUBE[:, :, 0], "rgb": CUBE[:, :, :3], "wl": CENTRES[None]}
    scipy.io.savemat(tmp_path / "old.mat", arrays)
    matlab_73(tmp_path / "new.mat", **arrays)
    for name in ("old.mat", "new.mat"):
        cube = read_cube(tmp_path / name, wavelength="wl")
        np.testing.assert_array_equal(cube.x_HWC, CUBE)
        assert cube.x_HWC.dtype == CUBE.dtype
        np.testing.assert_allclose(cube.wavelength, CENTRES * 1000)
        assert cube.source == {"file": name, "key": "img", "axes": "HWC", "shape": [5, 7, 11]}
        assert cube.valid_HW.all()
        np.testing.assert_array_equal(
            read_array(tmp_path / name, wanted="HW", key="map"), CUBE[:, :, 0]
        )


def test_numpy_files_say_nothing_of_their_axes(tmp_path):
    np.savez(tmp_path / "a.npz", dn=CUBE.transpose(2, 0, 1))
    np.save(tmp_path / "a.npy", CUBE)
    np.testing.assert_array_equal(read_cube(tmp_path / "a.npz", axes="CHW").x_HWC, CUBE)
    np.testing.assert_array_equal(read_cube(tmp_path / "a.npy", axes="HWC").x_HWC, CUBE)
    with pytest.raises(ValueError, match=r"\(11, 5, 7\).*say axes: HWC"):
        read_cube(tmp_path / "a.npz")


def test_nothing_pickled_is_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="expected a file of arrays of numbers"):
        read_cube(tmp_path / "a.npy", axes="HWC")
    (tmp_path / "b.mat").write_bytes(b"no MATLAB at all" * 40)
    with pytest.raises(ValueError, match="fetch it again"):
        read_cube(tmp_path / "b.mat")
    with pytest.raises(FileNotFoundError, match=r"c\.mat"):
        read_cube(tmp_path / "c.mat")
    (tmp_path / "d.txt").write_text("1")
    with pytest.raises(ValueError, match=r"expected \.mat, \.npz"):
        read_cube(tmp_path / "d.txt")


def test_several_cubes_or_none_are_listed(tmp_path):
    scipy.io.savemat(tmp_path / "two.mat", {"T1": CUBE, "T2": CUBE + 1})
    with pytest.raises(ValueError, match=r"found \['T1', 'T2'\] among .*say key"):
        read_cube(tmp_path / "two.mat")
    assert read_cube(tmp_path / "two.mat", key="T2").x_HWC[0, 0, 0] == CUBE[0, 0, 0] + 1
    with pytest.raises(ValueError, match=r"an array 'T3', found \{'T1': \(5, 7, 11\)"):
        read_cube(tmp_path / "two.mat", key="T3")
    scipy.io.savemat(tmp_path / "none.mat", {"gt": CUBE[:, :, 0], "name": "x"})
    with pytest.raises(ValueError, match="found none"):
        read_cube(tmp_path / "none.mat")
    with pytest.raises(ValueError, match="expected numbers in 'name'"):
        read_cube(tmp_path / "none.mat", key="name")


def test_pixels_that_lie_in_a_row(tmp_path):
    fortran = CUBE.reshape(35, 11, order="F").T  # as MATLAB's reshape does
    scipy.io.savemat(tmp_path / "row.mat", {"Y": fortran, "A": fortran[:4]})
    cube = read_cube(tmp_path / "row.mat", key="Y", axes="C(WH)", sides=(5, 7))
    np.testing.assert_array_equal(cube.x_HWC, CUBE)
    shares = read_array(tmp_path / "row.mat", wanted="EHW", key="A", axes="E(WH)", sides=(5, 7))
    np.testing.assert_array_equal(shares, CUBE.transpose(2, 0, 1)[:4])
    with pytest.raises(ValueError, match=r"W x H = 35 .* got sides \(5, 8\)"):
        read_cube(tmp_path / "row.mat", key="Y", axes="C(WH)", sides=(5, 8))
    with pytest.raises(ValueError, match=r"say sides: \[rows, columns\]"):
        read_cube(tmp_path / "row.mat", key="Y", axes="C(WH)")


@pytest.mark.parametrize("axes", ["HWB", "HW", "HWCC", "H-WC"])
def test_letters_that_do_not_fit_are_refused(axes):
    with pytest.raises(ValueError, match="expected axes of the letters H, W, C"):
        arrange(CUBE, axes, "HWC")
    with pytest.raises(ValueError, match=r"are 2, but the array has \(5, 7, 11\)"):
        arrange(CUBE, "C(HW)", "HWC")


def test_a_geotiff_keeps_its_grid_and_wavelengths(tmp_path):
    grid = from_origin(500_000, 5_800_000, 30, 30)
    path = tmp_path / "a.tif"
    stored = CUBE.transpose(2, 0, 1).copy()
    stored[:, 0, 0] = 65_000
    with rasterio.open(
        path, "w", driver="GTiff", height=5, width=7, count=11, dtype="uint16",
        crs="EPSG:32633", transform=grid, nodata=65_000,
    ) as file:  # fmt: skip
        file.write(stored)
        for number, centre in enumerate(CENTRES, start=1):
            file.update_tags(number, wavelength=centre)
    cube = read_cube(path)
    np.testing.assert_array_equal(cube.x_HWC[1:], CUBE[1:])
    np.testing.assert_allclose(cube.wavelength, CENTRES * 1000)
    assert (cube.crs, cube.transform) == ("EPSG:32633", tuple(grid)[:6])
    assert cube.valid_HW.sum() == 34
    assert not cube.valid_HW[0, 0]


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_envi_in_each_order(tmp_path, interleave):
    order = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    (tmp_path / "a.img").write_bytes(CUBE.transpose(order).astype("<u2").tobytes())
    (tmp_path / "a.hdr").write_text(
        f"ENVI\nsamples = 7\nlines = 5\nbands = 11\nheader offset = 0\ndata type = 12\n"
        f"interleave = {interleave}\nbyte order = 0\nwavelength units = Micrometers\n"
        f"wavelength = {{{', '.join(f'{one:.6f}' for one in CENTRES)}}}\n"
    )
    for name in ("a.hdr", "a.img"):
        cube = read_cube(tmp_path / name)
        np.testing.assert_array_equal(cube.x_HWC, CUBE)
        np.testing.assert_allclose(cube.wavelength, CENTRES * 1000, atol=1e-3)
        assert (cube.crs, cube.transform) == (None, None)
    (tmp_path / "a.img").unlink()
    with pytest.raises(FileNotFoundError, match=r"data in one of a, a\.dat"):
        read_cube(tmp_path / "a.hdr")
