"""What was taken for a scene, and what is in it: to be read before anything is trained on it."""

from pathlib import Path
from typing import Any

import numpy as np

import configs
from hypersigma.cubes.benchmarks import Benchmark, read_benchmark
from hypersigma.cubes.cube import Cube
from hypersigma.cubes.description import BenchmarkConfig, find_benchmark


def scene(name: str, root: Path) -> dict[str, Any]:
    """Read a scene and return in numbers what it is.

    Args:
        name: Of `configs/data/NAME.yaml`, or a YAML file.
        root: Folder of the public files.

    Raises:
        ConfigError: There is no such YAML, or it does not fit.
        FileNotFoundError: A file is missing; says where to get it.
        ValueError: What the files hold does not fit together.
    """
    path, _ = find_benchmark(name)
    config = configs.load(BenchmarkConfig, path)
    found = read_benchmark(name, root)
    said = {"title": config.title, "task": found.task, "where": config.where}
    if config.cite is not None:
        said["cite"] = config.cite
    said |= {f"trap {number}": trap for number, trap in enumerate(config.traps, start=1)}
    return said | {"cube": _cube(found.cube), **_truth(found)}


def _cube(cube: Cube) -> dict[str, Any]:
    values = cube.x_HWC[cube.valid_HW]
    known = {
        "rows": cube.sides[0], "columns": cube.sides[1], "bands": cube.bands,
        "dtype": str(cube.x_HWC.dtype), "smallest": float(values.min()),
        "largest": float(values.max()), "scale": cube.scale,
        "valid": float(cube.valid_HW.mean()),
    }  # fmt: skip
    if cube.wavelength is not None:
        known["first_nm"], known["last_nm"] = map(float, cube.wavelength[[0, -1]])
    if cube.crs is not None:
        known["crs"] = cube.crs
    taken = {key: value for key, value in cube.source.items() if value is not None}
    # A list is left out of what is printed as text.
    for key in ("shape", "bands_left_out"):
        if key in taken:
            taken[key] = ", ".join(map(str, taken[key]))
    return known | {"taken": taken}


def _truth(found: Benchmark) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if found.other is not None:
        said["other"] = _cube(found.other)
    if found.labels_HW is not None:
        counts = np.bincount(found.labels_HW.ravel(), minlength=len(found.classes) + 1)
        names = ("not labelled", *found.classes)
        names += tuple(f"class {number}" for number in range(len(names), len(counts)))
        said["labels"] = dict(zip(names, counts.tolist(), strict=True))
    if found.abundances_EHW is not None:
        means = found.abundances_EHW.mean((1, 2)).tolist()
        names = tuple(f"endmember {number + 1}" for number in range(len(means)))
        if len(found.classes) == len(means):
            names = found.classes
        said["mean_abundances"] = dict(zip(names, means, strict=True))
    return said
