"""Target detection: which pixels have something of a known spectrum in them.

The spectrum comes from the benchmark, from pixels that are given, from some of its mask, or from a
library. Pixels that it was taken from are not measured on.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, PositiveInt
from torch import Tensor

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.tasks.checks import image_of, mask_of, spectrum_of
from hypersigma.tasks.crops import Crops
from hypersigma.tasks.detecting import prepared_detector, score_maps
from hypersigma.tasks.detector import Detector, DetectorOptions
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TargetConfig:
    """Where the target's spectrum comes from: one of these; none: the benchmark says."""

    pixels: tuple[tuple[int, int], ...] = ()
    """Rows and columns of pixels that are nothing but target; their mean is taken."""
    from_mask: PositiveInt | None = None
    """How many pixels of the mask are drawn for it, by the split's seed."""
    library: Path | None = None
    """A text file with lines `wavelength [nm], value` in the cube's physical units; lines that are
    no numbers are left out. It is brought to the cube's wavelengths."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options(DetectorOptions):
    """What `options` of a target detection may have."""

    target: TargetConfig = dataclasses.field(default_factory=TargetConfig)


def build(config: TaskConfig, facts: Facts) -> Detector:
    """Return the model of a config, untrained: it says what ACE does."""
    return Detector(facts, config, options_of(config), known=True)


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains a target detector on a benchmark, whose mask only measures it.

    Raises:
        ValueError: The mask is missing or empty, or there is no target spectrum that fits.
    """
    mask_HW = mask_of(benchmark)
    target_C, used_HW = target_of(benchmark, options_of(config).target, config.split.seed)
    left_HW = benchmark.cube.valid_HW & ~used_HW
    if not (mask_HW & left_HW).any():
        raise ValueError(
            f"{benchmark.name}: expected targets to measure on beside the {int(used_HW.sum())} "
            f"that the spectrum is taken from, got {int(mask_HW.sum())} in all; take fewer"
        )
    model = build(config, Facts.of(benchmark.cube))
    model.target_C = target_C
    return prepared_detector(config, options_of(config), model, benchmark, mask_HW, left_HW)


def maps(config: TaskConfig, model: Detector, benchmark: Benchmark) -> Maps:
    """Return `score` (H, W) of a cube."""
    return score_maps(model, image_of(benchmark.cube), options_of(config))


def target_of(benchmark: Benchmark, config: TargetConfig, seed: int) -> tuple[Tensor, np.ndarray]:
    """Return the target's spectrum (C) in physical units, and which pixels it is of (H, W).

    Raises:
        ValueError: No or more than one way to it, or a spectrum that does not fit the cube.
    """
    cube, used_HW = benchmark.cube, np.zeros(benchmark.cube.sides, bool)
    ways = [bool(config.pixels), config.from_mask is not None, config.library is not None]
    if sum(ways) > 1:
        raise ValueError(
            "expected one of options.target.pixels, .from_mask and .library, got several"
        )
    if config.library is not None:
        return spectrum_of(from_library(config.library, cube.wavelength), cube,
                           where=str(config.library)), used_HW  # fmt: skip
    if not any(ways):
        if benchmark.target_C is None:
            raise ValueError(
                f"{benchmark.name}: expected a target spectrum, got none; say options.target: "
                "{from_mask: 3}, {pixels: [[row, column]]} or {library: FILE}"
            )
        return spectrum_of(benchmark.target_C, cube, where=benchmark.name), used_HW
    places = np.array(config.pixels)
    if config.from_mask is not None:
        every = np.argwhere(mask_of(benchmark))
        places = np.random.default_rng([seed, 17]).permutation(every)[: config.from_mask]
    sides = np.array(cube.sides)
    if (places < 0).any() or (places >= sides).any() or not cube.valid_HW[tuple(places.T)].all():
        raise ValueError(
            f"options.target.pixels: expected measured pixels of the {sides[0]} x {sides[1]} px of "
            f"{cube.name}, got {places.tolist()}"
        )
    used_HW[tuple(places.T)] = True
    mean_C = image_of(cube)[:, torch.from_numpy(used_HW)].mean(1)
    return spectrum_of(mean_C.numpy(), cube, where=benchmark.name), used_HW


def from_library(path: Path, wavelength_C: np.ndarray | None) -> np.ndarray:
    """Read a spectrum and bring it to wavelengths [nm], by the line between its own.

    Raises:
        ValueError: The cube has no wavelengths, the file no numbers, or it does not reach as far.
    """
    if wavelength_C is None:
        raise ValueError(f"{path}: expected a cube with wavelengths to bring a library spectrum to")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append([float(word) for word in line.replace(",", " ").split()[:2]])
        except ValueError:
            continue
    known_N2 = np.array([row for row in rows if len(row) == 2])
    if len(known_N2) < 2:
        raise ValueError(f"{path}: expected lines `wavelength [nm], value`, got {len(known_N2)}")
    known_N2 = known_N2[np.argsort(known_N2[:, 0])]
    low, high = known_N2[0, 0], known_N2[-1, 0]
    if wavelength_C.min() < low or wavelength_C.max() > high:
        raise ValueError(
            f"{path}: expected a spectrum that reaches over the cube's {wavelength_C.min():.0f}-"
            f"{wavelength_C.max():.0f} nm, got {low:.0f}-{high:.0f}; leave out bands beyond it"
        )
    return np.interp(wavelength_C, known_N2[:, 0], known_N2[:, 1])


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of target_detection")


TASK = Task(prepare, build, maps)
