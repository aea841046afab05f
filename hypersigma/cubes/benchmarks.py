"""Public scenes by name: what a YAML file says of one, and its reader.

`configs/data/NAME.yaml` names the files, the arrays in them and the order of their axes, checksums,
where to get them, and what has surprised people. Everything is checked before a model sees it.
"""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

import configs
from hypersigma.cubes.cube import Cube, check_bands
from hypersigma.cubes.description import BenchmarkConfig, FileConfig, band_rows, find_benchmark
from hypersigma.cubes.readers import read_array, read_cube
from hypersigma.cubes.stored import StoredConfig, read_labels, read_stored
from hypersigma.cubes.synthetic import SyntheticConfig, make

type Numbers = NDArray[np.floating[Any]]

TOLD = ("title", "task", "where", "cite", "traps")
"""Keys of a description that say nothing of the numbers."""


@dataclass(frozen=True)
class Benchmark:
    """A scene, and what is known to be true of it."""

    name: str
    task: str
    cube: Cube
    other: Cube | None = None
    """The second date."""
    labels_HW: NDArray[np.int64] | None = None
    """0 is not labelled. Detection: 1 is target, 0 is not. Change: 1 unchanged, 2 changed."""
    classes: tuple[str, ...] = ()
    endmembers_CE: Numbers | None = None
    abundances_EHW: Numbers | None = None
    target_C: Numbers | None = None
    """Spectrum of the target, in physical units."""
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What says, as plain data, that another scene is the same: how it was read, and SHA-256 of
    each file, or the version of the store."""


def read_benchmark(name: str | Path, root: Path | str = ".") -> Benchmark:
    """Read a scene.

    Args:
        name: Of `configs/data/NAME.yaml`, or a YAML file.
        root: Folder of the public files.

    Raises:
        ConfigError: There is no such YAML, or it does not fit.
        FileNotFoundError: A file is missing; says where to get it.
        ValueError: A file is another one, or what it holds does not fit the cube.
    """
    path, stem = find_benchmark(name)
    config = configs.load(BenchmarkConfig, path)
    if config.synthetic is not None:
        return _made(stem, config, config.synthetic)
    if config.stored is not None:
        return _of_ours(stem, config, config.stored)
    if config.cube is None:
        raise configs.ConfigError(f"{path}: expected cube:, stored: or synthetic:, got none")
    cube = _cube(config.cube, config, Path(root))
    found = Benchmark(
        name=stem,
        task=config.task,
        cube=cube,
        other=None if config.other is None else _cube(config.other, config, Path(root)),
        labels_HW=None if config.labels is None else _labels(config.labels, config, Path(root)),
        classes=config.classes,
        endmembers_CE=_optional(config.endmembers, "CE", config, Path(root)),
        abundances_EHW=_optional(config.abundances, "EHW", config, Path(root)),
        origin={"read": how_read(config), "sha256": _digests(config, Path(root))},
    )
    check(found)
    return found


def how_read(config: BenchmarkConfig) -> dict[str, Any]:
    """Return a description as plain data, without what only people read."""
    plain = TypeAdapter(BenchmarkConfig).dump_python(config, mode="json", exclude_defaults=True)
    return {key: value for key, value in plain.items() if key not in TOLD}


def check(found: Benchmark) -> None:
    """Refuse what does not fit together.

    Raises:
        ValueError: Says both sides, and the way out.
    """
    cube, name = found.cube, found.name
    check_bands(cube)
    if found.other is not None:
        check_bands(found.other)
        if found.other.x_HWC.shape != cube.x_HWC.shape:
            raise ValueError(
                f"{name}: expected two dates of one shape (rows, columns, bands), got "
                f"{cube.x_HWC.shape} and {found.other.x_HWC.shape}; bring them to one grid and one "
                "set of bands"
            )
    if found.labels_HW is not None:
        _check_labels(found, found.labels_HW)
    _check_counts(found)
    for what, spectra in (("endmembers", found.endmembers_CE), ("target spectrum", found.target_C)):
        if spectra is not None and len(spectra) != cube.bands:
            raise ValueError(
                f"{name}: expected {what} of the cube's {cube.bands} bands, got {len(spectra)}; "
                "resample them to its wavelengths, or say axes:"
            )
    if found.abundances_EHW is not None and found.abundances_EHW.shape[1:] != cube.sides:
        raise ValueError(
            f"{name}: expected abundances of the cube's {cube.sides} pixels, got "
            f"{found.abundances_EHW.shape[1:]}; say axes: and sides:"
        )


def _check_counts(found: Benchmark) -> None:
    counts = {
        "endmembers": None if found.endmembers_CE is None else found.endmembers_CE.shape[1],
        "abundances": None if found.abundances_EHW is None else len(found.abundances_EHW),
        "classes": len(found.classes) or None if found.task == "unmixing" else None,
    }
    there = {name: count for name, count in counts.items() if count is not None}
    if len(set(there.values())) > 1:
        raise ValueError(
            f"{found.name}: expected as many endmembers as abundances and names, got {there}"
        )


def _check_labels(found: Benchmark, labels_HW: NDArray[np.int64]) -> None:
    cube, name = found.cube, found.name
    if labels_HW.shape != cube.sides:
        raise ValueError(
            f"{name}: expected labels of the cube's {cube.sides} pixels, got {labels_HW.shape}; "
            "say crop: [row, column, rows, columns] of the labels if they have a border"
        )
    if not labels_HW.any():
        raise ValueError(
            f"{name}: expected labelled pixels, got none of {labels_HW.size}; say key: of the map"
        )
    if found.classes and labels_HW.max() > len(found.classes):
        raise ValueError(
            f"{name}: expected classes 0..{len(found.classes)} as named, got {labels_HW.max()}; "
            "name every class, or say values: [stored number of class 1, ...]"
        )


def _cube(file: FileConfig, config: BenchmarkConfig, root: Path) -> Cube:
    path, digest = _checked(file, config, root)
    cube = read_cube(
        path, key=file.key, axes=file.axes, sides=file.sides, wavelength=file.wavelength
    )
    wavelength = cube.wavelength
    if wavelength is None and config.wavelengths is not None:
        wavelength = config.wavelengths.centres()
        if len(wavelength) != cube.bands:
            raise ValueError(
                f"{path}: expected the {cube.bands} bands of the file, got wavelengths: of "
                f"{len(wavelength)}; say which are absent"
            )
    cube = dataclasses.replace(
        cube, wavelength=wavelength, scale=config.scale, source={**cube.source, "sha256": digest}
    )
    if file.crop is not None:
        cube = dataclasses.replace(
            cube, x_HWC=_cropped(cube.x_HWC, file.crop),
            valid_HW=_cropped(cube.valid_HW, file.crop), transform=None,
        )  # fmt: skip
    return cube.without_bands(band_rows(config.leave_out)) if config.leave_out else cube


def _labels(file: FileConfig, config: BenchmarkConfig, root: Path) -> NDArray[np.int64]:
    path, _ = _checked(file, config, root)
    stored_HW = read_array(path, wanted="HW", key=file.key, axes=file.axes, sides=file.sides)
    if file.crop is not None:
        stored_HW = _cropped(stored_HW, file.crop)
    if config.values is None:
        return _whole(stored_HW, path)
    labels_HW = np.zeros(stored_HW.shape, np.int64)
    for number, value in enumerate(config.values, start=1):
        labels_HW[stored_HW == value] = number
    return labels_HW


def _whole(stored_HW: Numbers, path: Path) -> NDArray[np.int64]:
    """Return labels as integers.

    Raises:
        ValueError: They are none, or negative.
    """
    wrong_HW = ~np.isfinite(stored_HW) | (stored_HW < 0) | (stored_HW != np.round(stored_HW))
    if wrong_HW.any():
        raise ValueError(
            f"{path}: expected labels 0, 1, 2, ..., got {stored_HW[wrong_HW][0]} in "
            f"{int(wrong_HW.sum())} of {wrong_HW.size} pixels; is it another array (key:)? or say "
            "values: [stored number of class 1, ...]"
        )
    return np.asarray(stored_HW, np.int64)


def _optional(
    file: FileConfig | None, wanted: str, config: BenchmarkConfig, root: Path
) -> Numbers | None:
    if file is None:
        return None
    path, _ = _checked(file, config, root)
    array = read_array(path, wanted=wanted, key=file.key, axes=file.axes, sides=file.sides)
    return np.asarray(array, np.float64)


def _cropped(array: NDArray[Any], crop: tuple[int, int, int, int]) -> NDArray[Any]:
    row, column, rows, columns = crop
    return array[row : row + rows, column : column + columns]


def _checked(file: FileConfig, config: BenchmarkConfig, root: Path) -> tuple[Path, str]:
    """Return where a file is and its SHA-256."""
    candidates = [root / file.file, root / Path(file.file).name]
    path = next((one for one in candidates if one.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{candidates[0]}: expected a file of {config.title}, found none; get it: "
            f"{config.where}; and say root: the folder it lies in"
        )
    stat = path.stat()
    digest = _digest(path, stat.st_size, stat.st_mtime_ns)
    if file.sha256 is not None and digest != file.sha256:
        raise ValueError(
            f"{path}: expected the file of {config.title} with SHA-256 {file.sha256}, got "
            f"{digest}; fetch it again, or write a YAML of your own if it is another one"
        )
    return path, digest


@functools.lru_cache(maxsize=32)
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    """Return a file's SHA-256, counted once as long as it is not written."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digests(config: BenchmarkConfig, root: Path) -> dict[str, str]:
    files = (config.cube, config.other, config.labels, config.endmembers, config.abundances)
    return {file.file: _checked(file, config, root)[1] for file in files if file is not None}


def _of_ours(name: str, config: BenchmarkConfig, stored: StoredConfig) -> Benchmark:
    cube, version = read_stored(stored)
    labels_HW, names = read_labels(stored, cube)
    said = hashlib.sha256(labels_HW.tobytes() + repr(names).encode()).hexdigest()
    if config.leave_out:
        cube = cube.without_bands(band_rows(config.leave_out))
    found = Benchmark(
        name=name, task=config.task, cube=cube, classes=names or config.classes,
        labels_HW=labels_HW if stored.labels is not None else None,
        origin={"read": how_read(config), "version": version, "labels_sha256": said},
    )  # fmt: skip
    check(found)
    return found


def _made(name: str, config: BenchmarkConfig, made: SyntheticConfig) -> Benchmark:
    scene = make(made)
    found = Benchmark(
        name=name, task=config.task, classes=config.classes or scene.classes,
        cube=scene.cube, other=scene.other, labels_HW=scene.labels_HW,
        endmembers_CE=scene.endmembers_CE, abundances_EHW=scene.abundances_EHW,
        target_C=scene.target_C, origin={"read": how_read(config)},
    )  # fmt: skip
    check(found)
    return found
