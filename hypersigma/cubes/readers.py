"""Read a cube or a map of labels from `.mat` (v5, v7.3), `.npz`, `.npy`, ENVI or GeoTIFF.

The array is found by its shape; what was taken is told in the cube's `source`. Nothing pickled is
ever opened.
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.io.matlab
from numpy.typing import NDArray

from hypersigma.cubes.axes import arrange
from hypersigma.cubes.cube import Cube, new_cube

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_OFFSETS = (0, 512)
DAMAGED = (zipfile.BadZipFile, zlib.error, scipy.io.matlab.MatReadError)
"""Where it may stand; MATLAB v7.3 puts 512 bytes of its own before it."""
RASTERS = frozenset({".tif", ".tiff", ".hdr", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw"})


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of a file, by key."""

    found: dict[str, NDArray[Any]]
    axes: str | None
    """Of a cube as this kind of file usually has it; None: it has no usual one."""


def read_cube(
    path: Path,
    *,
    key: str | None = None,
    axes: str | None = None,
    sides: tuple[int, int] | None = None,
    wavelength: str | None = None,
) -> Cube:
    """Read an image of many bands.

    Args:
        path: `.mat`, `.npz`, `.npy`, `.tif`, or ENVI's header or data.
        key: Of the array in the file; None: the only one that has three axes.
        axes: Their order in the file, see `hypersigma.cubes.axes`; None: as usual for the kind of
            file: rows, columns, bands for MATLAB's.
        sides: Rows and columns, where they lie in one axis.
        wavelength: Key of the band centres in the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No array fits, or several do, or the axes do not; says which there are.
    """
    if path.suffix.lower() in RASTERS:
        from hypersigma.cubes.raster import read_raster

        return read_raster(path)
    arrays = read_arrays(path)
    name = key or _only(arrays.found, path, _is_image, "an image of three axes")
    array = _named(arrays.found, name, path)
    order = axes or arrays.axes
    if order is None:
        raise ValueError(
            f"{path}: {name} has shape {array.shape}, and its axes may stand in any order; "
            "say axes: HWC (rows, columns, bands) or CHW"
        )
    try:
        x_HWC = arrange(array, order, "HWC", sides)
        centres = None if wavelength is None else _named(arrays.found, wavelength, path)
        source = {"file": path.name, "key": name, "axes": order, "shape": list(x_HWC.shape)}
        return new_cube(x_HWC, wavelength=centres, source=source)
    except ValueError as error:
        raise ValueError(f"{path}: {name}: {error}") from error


def read_array(
    path: Path,
    *,
    wanted: str,
    key: str | None = None,
    axes: str | None = None,
    sides: tuple[int, int] | None = None,
) -> NDArray[Any]:
    """Read an array of two or three axes in the wanted order: labels, endmembers, abundances.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As `read_cube`.
    """
    if path.suffix.lower() in RASTERS:
        from hypersigma.cubes.raster import read_raster

        return arrange(read_raster(path).x_HWC, "HWC", "HWC")[:, :, 0]
    arrays = read_arrays(path)
    # Numbers of pixels in a row are two axes where three are wanted.
    counts = {len(wanted)} if axes is None else {2, 3}
    name = key or _only(
        arrays.found, path, lambda a: a.ndim in counts and min(a.shape) > 1,
        f"an array of {len(wanted)} axes",
    )  # fmt: skip
    try:
        return arrange(_named(arrays.found, name, path), axes or wanted, wanted, sides)
    except ValueError as error:
        raise ValueError(f"{path}: {name}: {error}") from error


def read_arrays(path: Path) -> Arrays:
    """Read all arrays of numbers of a `.mat`, `.npz` or `.npy` file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, found none")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return Arrays({"array": np.load(path, allow_pickle=False)}, None)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return Arrays({name: file[name] for name in file.files}, None)
        if suffix == ".mat" and _is_hdf5(path):
            with h5py.File(path, "r") as file:
                return Arrays(_datasets(file), "HWC")
        if suffix == ".mat":
            found = scipy.io.loadmat(path)
            return Arrays({name: a for name, a in found.items() if isinstance(a, np.ndarray)},
                          "HWC")  # fmt: skip
    except (ValueError, OSError, EOFError, NotImplementedError, *DAMAGED) as error:
        raise ValueError(
            f"{path}: expected a file of arrays of numbers, got: {error}; "
            "fetch it again, or write the arrays as .npz"
        ) from error
    raise ValueError(f"{path}: expected .mat, .npz, .npy, .tif or an ENVI header, got {suffix!r}")


def _datasets(file: h5py.File) -> dict[str, NDArray[Any]]:
    """Return arrays with their axes as MATLAB shows them, which HDF5 stores in reverse."""
    return {
        name: np.asarray(item[()]).T
        for name, item in file.items()
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iufb"
    }


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        for offset in HDF5_OFFSETS:
            file.seek(offset)
            if file.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
                return True
    return False


def _is_image(array: NDArray[Any]) -> bool:
    # A picture of three colours lies beside many cubes.
    return array.ndim == 3 and array.dtype.kind in "iuf" and min(array.shape) > 3


def _only(arrays: Mapping[str, NDArray[Any]], path: Path, fits: Any, what: str) -> str:
    names = [name for name, array in arrays.items() if fits(array)]
    if len(names) != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(
            f"{path}: expected one array that can be {what}, found {names or 'none'} among "
            f"{shapes}; say key: NAME"
        )
    return names[0]


def _named(arrays: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[Any]:
    if key not in arrays:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(f"{path}: expected an array {key!r}, found {shapes}; say key: NAME")
    array = arrays[key]
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{path}: expected numbers in {key!r}, got {array.dtype}")
    return array
