"""What a YAML file says of a public scene: its files, the arrays in them, and where to get them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict, PositiveFloat, PositiveInt

import configs
from hypersigma.cubes.stored import StoredConfig
from hypersigma.cubes.synthetic import SyntheticConfig


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
        return np.delete(np.linspace(self.first, self.last, self.count), band_rows(self.absent))


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
    stored: StoredConfig | None = None
    """A scene of a tile store or of shards of ours, with its labels."""


def find_benchmark(name: str | Path) -> tuple[Path, str]:
    """Return the YAML file that says of a scene, and the scene's name.

    Raises:
        ConfigError: There is none of that name.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = configs.find(f"data/{name}")
    return path, path.stem


def band_rows(ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the places from 0 of bands in ranges from 1."""
    return [band - 1 for first, last in ranges for band in range(first, last + 1)]
