import contextlib
import io
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.foreign.arrays import UnfitError, measured, read_array, stored, without
from tests.pipeline.foreign.inputs import mat_bytes, npy_bytes

TILE = np.arange(3 * 64 * 64, dtype="i2").reshape(3, 64, 64)


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", "i4", "u8", "f4", ">f8"])
@pytest.mark.parametrize("order", "CF")
def test_npy_of_any_number_is_read(dtype, order):
    tile = (TILE % 100).astype(dtype, order=order)
    np.testing.assert_array_equal(read_array(npy_bytes(tile), "npy", ""), tile)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_mat_of_any_number_is_read(dtype, compressed):
    tile = (TILE % 100).astype(dtype)
    file = io.BytesIO()
    savemat(file, {"other": np.ones(3), "img": tile}, do_compression=compressed)
    np.testing.assert_array_equal(read_array(file.getvalue(), "mat", "img"), tile)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def _object_npy():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|O", "fortran_order": False, "shape": (1, 64, 64)}
    )
    return file.getvalue() + pickle.dumps(_Trap())


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (_object_npy(), "npy", "dtype"),
        (pickle.dumps(_Trap()), "npy", "unreadable"),
        (npy_bytes(TILE)[:-1], "npy", "unreadable"),
        (npy_bytes(TILE) + b"x", "npy", "unreadable"),
        (npy_bytes(TILE[0]), "npy", "shape"),
        (npy_bytes(TILE[:, :63]), "npy", "shape"),
        (npy_bytes(TILE > 3), "npy", "dtype"),
        (npy_bytes(TILE + 1j), "npy", "dtype"),
        (b"", "npy", "unreadable"),
        (b"", "mat", "unreadable"),
        (b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n", "mat", "MATLAB 7.3"),
        (mat_bytes(TILE + 1j), "mat", "dtype"),
        (mat_bytes("text"), "mat", "shape"),
        (mat_bytes({"field": TILE}), "mat", "shape"),
        (mat_bytes(TILE, key="x"), "mat", "key"),
        (mat_bytes(TILE)[:-100], "mat", "unreadable"),
    ],
)
def test_what_is_no_tile_is_told_in_words(data, kind, reason):
    with pytest.raises(UnfitError) as error:
        read_array(data, kind, "img")
    assert error.value.reason == reason


def test_a_header_that_promises_too_much_takes_no_memory():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 64, 64)}
    )
    with pytest.raises(UnfitError, match="shape"):
        read_array(file.getvalue(), "npy", "")


@pytest.mark.parametrize("kind", ["npy", "mat", "compressed"])
@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_a_tile_or_told(kind, seed):
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    savemat(file, {"img": TILE}, do_compression=kind == "compressed")
    data = bytearray(npy_bytes(TILE) if kind == "npy" else file.getvalue())
    for place in rng.integers(0, 250, 3):
        data[place] = rng.integers(0, 256)
    if seed % 2:
        del data[rng.integers(0, len(data)) :]
    kind = "npy" if kind == "npy" else "mat"
    with contextlib.suppress(UnfitError):  # and nothing else
        assert read_array(bytes(data), kind, "img").shape[1:] == (64, 64)


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        (np.array([40000], "u2"), "int16", "range"),
        (np.array([2**64 - 1], "u8"), "int16", "range"),
        (np.array([-32769], "i4"), "int16", "range"),
        (np.array([1.5]), "int16", "dtype"),
        (np.array([np.nan]), "int16", "NaN"),
        (np.array([np.inf]), "float32", "infinite"),
        (np.array([1e300]), "float32", "range"),
        (np.array([2**24 + 1], "i4"), "float32", "range"),
    ],
)
def test_no_value_becomes_another(values, dtype, reason):
    with pytest.raises(UnfitError) as error:
        stored(values, dtype)
    assert error.value.reason == reason


def test_values_that_fit_are_kept():
    for values in (np.array([-32768.0, 32767]), np.array([0, 200], "u1"), np.array([7], ">i4")):
        got = stored(values, "int16")
        assert got.dtype == np.int16
        np.testing.assert_array_equal(got, values)
    assert stored(np.array([0.1, np.nan]), "float32").dtype == np.float32


@pytest.mark.parametrize(
    ("values", "nodata", "wanted"),
    [
        (np.array([1e36, 5.5], "f4"), 1e36, [0, 5.5]),
        (np.array([1e36, 5.5]), 1e36, [0, 5.5]),
        (np.array([-9999, 7], "i2"), -9999, [0, 7]),
        (np.array([65535, 7], "u2"), 65535, [0, 7]),
        (np.array([65535, 7], "u2"), -1, [65535, 7]),
        (np.array([3, 7], "u1"), 1e36, [3, 7]),
        (np.array([3, 7], "i2"), 3.5, [3, 7]),
        (np.array([np.nan, 7.0]), 7, [np.nan, 0]),
    ],
)
def test_a_value_of_no_measurement_becomes_0(values, nodata, wanted):
    got = without(values, nodata)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, wanted)


def test_pixels_without_data_are_not_valid():
    tile = np.zeros((3, 64, 64), "i2")
    tile[1, 0, 0], tile[:, 0, 1] = 5, -32767
    assert np.argwhere(measured(tile)).tolist() == [[0, 0]]
    floats = np.full((3, 64, 64), np.nan, "f4")
    floats[2, 3, 4], floats[:, 5] = 0.5, 0
    assert np.argwhere(measured(floats)).tolist() == [[3, 4]]
