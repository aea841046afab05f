"""Files of tiles as others write them, made for a test."""

import io
import json
import tarfile

import numpy as np
from scipy.io import savemat

BANDS = {"EO1": 175, "GF5": 150}
HYPERION = "EO1H1230242013205110KF"
AHSI = "GF5B_AHSI_E115.6_N41.2_20220101_012345_L10000123456"


def values(name, dtype="i2", bands=None):
    """Return a tile's values (band, 64, 64), which follow from its name."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(1, 6000, (bands or BANDS[name[:3]], 64, 64)).astype(dtype)


def write_mat(folder, name, array=None, *, key="img", compressed=False):
    folder.mkdir(parents=True, exist_ok=True)
    array = values(name) if array is None else array
    savemat(folder / f"{name}.mat", {key: array}, do_compression=compressed)


def mat_bytes(array, key="img"):
    file = io.BytesIO()
    savemat(file, {key: array})
    return file.getvalue()


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_tar(path, members):
    """Write a tar file of (name, bytes)."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def npy_tile(folder, row):
    """Return the array and the metadata of an index row, read by tarfile and NumPy alone."""
    with tarfile.open(folder / row["shard"]) as tar:
        tile = np.load(io.BytesIO(tar.extractfile(f"{row['tile_id']}.tile.npy").read()))
        return tile, json.load(tar.extractfile(f"{row['tile_id']}.meta.json"))
