import numpy as np
import pytest

from tests.pipeline.foreign.inputs import AHSI, HYPERION, mat_bytes, values, write_mat


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder as the reference data set has them, with what must not be taken."""
    root = tmp_path_factory.mktemp("reference")
    for number in range(3):
        name = f"{HYPERION}_{number}"
        write_mat(root / "EO1-part1", name, compressed=number == 1)
        write_mat(root / "GF5-part1", f"{AHSI}_{number}", values(f"{AHSI}_{number}", "f8"))
    write_mat(root / "EO1-part2", "EO1H0380342005105110KF_7")
    bad = root / "EO1-part2"
    (bad / "EO1_damaged.mat").write_bytes(mat_bytes(values("EO1"))[:-2000])
    write_mat(bad, "EO1_key", key="data")
    write_mat(bad, "EO1_shape", np.moveaxis(values("EO1"), 0, 2))
    write_mat(bad, "EO1_bands", values("EO1", bands=150))
    write_mat(bad, "EO1_range", values("EO1", "u2") + np.uint16(40000))
    write_mat(bad, "EO1_nothing", np.zeros((175, 64, 64), "i2"))
    write_mat(bad, "EO1_nan", np.where(values("EO1") == 7, np.nan, values("EO1")))
    write_mat(bad, "EO1_half", values("EO1") / 2)
    write_mat(bad, "unknown", values("EO1"))
    (root / "EO1-part3.zip").write_bytes(b"PK")
    return root
