"""Public scenes by name: what a YAML file says of one, and its reader.

`configs/data/NAME.yaml` names the files, the arrays in them and the order of their axes, checksums,
where to get them, and what has surprised people. Everything is checked before a model sees it.
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict, PositiveFloat, PositiveInt

import configs
from hypersigma.cubes.cube import Cube, check_bands
from hypersigma.cubes.readers import read_array, read_cube
from hypersigma.cubes.synthetic import SyntheticConfig, make

type Numbers = NDArray[np.floating[Any]]


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FileConfig:
    """An array in a file."""

    file: str
    """Below the folder of public files; its name alone will do there, too."""
    key: str | None = None
    """Of the array; null: the only one that can be it."""
    axes: str | None = None
    """Order of its axes, see `hypersigma.cubes.axes`; null: as usual for the kind of file."""
    sides: tuple[int, int] | None = None
    """Rows and columns, where the pixels lie in one axis."""
    sha256: str | None = None
    """Of the file; null: not known to us."""
    wavelength: str | None = None
    """Key of the band centres in the same file."""
    crop: tuple[int, int, int, int] | None = None
    """First row, first column, rows and columns that are taken: maps with a border."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EvenConfig:
    """Band centres at even steps: near the sensor's own, for files that do not tell them."""

    first: PositiveFloat
    """[nm]"""
    last: PositiveFloat
    """[nm]"""
    count: PositiveInt
    """Bands of the sensor."""
    absent: tuple[tuple[int, int], ...] = ()
    """First and last of the sensor's bands, from 1, that the file does not have."""

    def centres(self) -> NDArray[np.float64]:
        """Return the centres of the bands that are there [nm]."""
        return np.delete(np.linspace(self.first, self.last, self.count), _rows(self.absent))


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BenchmarkConfig:
    """What `configs/data/NAME.yaml` says of a scene."""

    title: str
    task: str
    """What it is mostly used for."""
    where: str
    """Where to get the files."""
    cite: str | None = None
    cube: FileConfig | None = None
    other: FileConfig | None = None
    """The second date."""
    labels: FileConfig | None = None
    values: tuple[int, ...] | None = None
    """What the file of labels says for class 1, 2, ...; all else is 0; null: as stored."""
    classes: tuple[str, ...] = ()
    endmembers: FileConfig | None = None
    """Bands x endmembers, unless `axes` says `EC`."""
    abundances: FileConfig | None = None
    """Endmembers, rows, columns, unless `axes` says otherwise."""
    scale: PositiveFloat = 1.0
    """Stored number of a physical 1."""
    wavelengths: EvenConfig | None = None
    """Of the bands, where the file does not tell them."""
    leave_out: tuple[tuple[int, int], ...] = ()
    """First and last band, from 1 as stored, that are left out."""
    traps: tuple[str, ...] = ()
    """What has surprised people."""
    synthetic: SyntheticConfig | None = None
    """Made, not read."""


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
    path, stem = _find(name)
    config = configs.load(BenchmarkConfig, path)
    if config.synthetic is not None:
        return _made(stem, config, config.synthetic)
    if config.cube is None:
        raise configs.ConfigError(f"{path}: expected cube: or synthetic:, got neither")
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
    )
    check(found)
    return found


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


def _find(name: str | Path) -> tuple[Path, str]:
    """Return the YAML file of a name, and the name of a YAML file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = configs.find(f"data/{name}")
    return path, path.stem


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
    return cube.without_bands(_rows(config.leave_out)) if config.leave_out else cube


def _rows(ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the places from 0 of bands in ranges from 1."""
    return [band - 1 for first, last in ranges for band in range(first, last + 1)]


def _labels(file: FileConfig, config: BenchmarkConfig, root: Path) -> NDArray[np.int64]:
    path, _ = _checked(file, config, root)
    stored_HW = read_array(path, wanted="HW", key=file.key, axes=file.axes, sides=file.sides)
    if file.crop is not None:
        stored_HW = _cropped(stored_HW, file.crop)
    if config.values is None:
        return np.asarray(stored_HW, np.int64)
    labels_HW = np.zeros(stored_HW.shape, np.int64)
    for number, value in enumerate(config.values, start=1):
        labels_HW[stored_HW == value] = number
    return labels_HW


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
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if file.sha256 is not None and digest != file.sha256:
        raise ValueError(
            f"{path}: expected the file of {config.title} with SHA-256 {file.sha256}, got "
            f"{digest}; fetch it again, or write a YAML of your own if it is another one"
        )
    return path, digest


def _made(name: str, config: BenchmarkConfig, made: SyntheticConfig) -> Benchmark:
    scene = make(made)
    found = Benchmark(
        name=name, task=config.task, classes=config.classes or scene.classes,
        cube=scene.cube, other=scene.other, labels_HW=scene.labels_HW,
        endmembers_CE=scene.endmembers_CE, abundances_EHW=scene.abundances_EHW,
        target_C=scene.target_C,
    )  # fmt: skip
    check(found)
    return found
