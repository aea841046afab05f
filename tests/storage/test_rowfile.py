import numpy as np
import pytest

from storage.rowfile import RowFile
from storage.schema import DamagedError


@pytest.fixture
def table(tmp_path):
    stored = np.random.default_rng(0).integers(0, 2**32, (7, 5), dtype=np.uint32)
    np.save(tmp_path / "table.npy", stored)
    return tmp_path / "table.npy", stored


def test_rows_and_parts_of_rows_are_those_of_the_array(table):
    path, stored = table
    rows = RowFile(path)
    assert (rows.rows, rows.columns, rows.dtype) == (7, 5, np.uint32)
    for number in (0, 3, 6):
        np.testing.assert_array_equal(rows.row(number), stored[number])
        np.testing.assert_array_equal(rows.row(number, 1, 4), stored[number, 1:4])
        np.testing.assert_array_equal(rows.row(number, 2, 99), stored[number, 2:])


def test_a_file_cut_short_or_of_another_kind_is_told(table, tmp_path):
    path, _ = table
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DamagedError, match="expected row 6"):
        RowFile(path).row(6)
    np.save(tmp_path / "line.npy", np.arange(3))
    (tmp_path / "text.npy").write_text("not an array")
    for name in ("line.npy", "text.npy"):
        with pytest.raises(DamagedError, match=f"{name}: expected an npy file of rows"):
            RowFile(tmp_path / name)
