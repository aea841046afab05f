"""Scenes with known truth, for tasks that have no public one at hand, and for tests.

Mixtures of smooth spectra on patchy ground: linear mixing with the light of each pixel and noise of
the sensor. Everything is a function of the config.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt
from scipy.ndimage import gaussian_filter, label

from hypersigma.cubes.cube import Cube, new_cube

type Numbers = NDArray[np.floating[Any]]

RANGE_NM = (400.0, 2500.0)
FEATURES = 8
"""Absorptions and slopes of a spectrum."""
PATCH = 6.0
"""Pixels over which the ground changes."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SyntheticConfig:
    """A scene that is made."""

    kind: Literal["classes", "unmixing", "change", "target"]
    rows: PositiveInt = 64
    columns: PositiveInt = 64
    bands: int = Field(default=60, ge=8)
    materials: int = Field(default=4, ge=2)
    noise: NonNegativeFloat = 0.01
    """Standard deviation of each sample, in reflectance."""
    light: NonNegativeFloat = 0.1
    """Standard deviation of a pixel's brightness, relative."""
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Scene:
    """A made scene and its truth; see `hypersigma.cubes.benchmarks.Benchmark`."""

    cube: Cube
    other: Cube | None
    labels_HW: NDArray[np.int64]
    classes: tuple[str, ...]
    endmembers_CE: Numbers
    abundances_EHW: Numbers
    target_C: Numbers | None = None


def make(config: SyntheticConfig) -> Scene:
    """Return a scene of mixtures: labels are the largest share, what changed, or where targets are.

    The second date of `change` has other light and noise everywhere, other ground in some patches.
    """
    rng = np.random.default_rng([config.seed, 5])
    ends_CE = library(config.materials + 1, config.bands, rng)
    target_C, ends_CE = ends_CE[:, -1], ends_CE[:, :-1]
    shares_EHW = ground(config, rng)
    names = tuple(f"material {number}" for number in range(1, config.materials + 1))
    other, labels_HW, target = None, shares_EHW.argmax(0) + 1, None
    if config.kind == "change":
        names = ("unchanged", "changed")
        changed_HW = patches((config.rows, config.columns), rng, share=0.15)
        later_EHW = np.where(changed_HW, np.roll(shares_EHW, 1, axis=0), shares_EHW)
        other = _seen(ends_CE, later_EHW, config, rng)
        # What is as before by chance has not changed.
        moved_HW = np.abs(later_EHW - shares_EHW).sum(0) > 0.3
        labels_HW = np.where(changed_HW & moved_HW, 2, np.where(changed_HW, 0, 1))
    if config.kind == "target":
        names, target = ("target",), target_C
        filled_HW = np.zeros((config.rows, config.columns))
        chosen = rng.choice(filled_HW.size, max(3, filled_HW.size // 200), replace=False)
        filled_HW.flat[chosen] = rng.uniform(0.3, 1.0, len(chosen))
        labels_HW = (filled_HW > 0).astype(np.int64)
        ends_CE = np.concatenate((ends_CE, target_C[:, None]), 1)
        shares_EHW = np.concatenate((shares_EHW * (1 - filled_HW), filled_HW[None]))
    cube = _seen(ends_CE, shares_EHW, config, rng)
    return Scene(cube, other, labels_HW.astype(np.int64), names, ends_CE, shares_EHW, target)


def library(count: int, bands: int, rng: np.random.Generator) -> Numbers:
    """Return smooth spectra (C, count) of reflectance, each with features of its own."""
    place_C = np.linspace(0, 1, bands)[:, None]
    spectra = np.full((bands, count), 0.5) + rng.uniform(-0.2, 0.2, count)
    for _ in range(FEATURES):
        centre, width = rng.uniform(0, 1, count), rng.uniform(0.03, 0.3, count)
        depth = rng.normal(0, 0.25, count)
        spectra += depth * np.exp(-0.5 * ((place_C - centre) / width) ** 2)
    low, high = spectra.min(0), spectra.max(0)
    return np.asarray(0.05 + 0.75 * (spectra - low) / (high - low) * rng.uniform(0.5, 1, count))


def ground(config: SyntheticConfig, rng: np.random.Generator) -> Numbers:
    """Return shares of the materials (E, H, W), patchy, near pure in the middle of patches."""
    rough = rng.normal(size=(config.materials, config.rows, config.columns))
    smooth = np.stack([gaussian_filter(one, PATCH, mode="reflect") for one in rough])
    weight = np.exp(6 * smooth / smooth.std())
    return np.asarray(weight / weight.sum(0))


def patches(sides: tuple[int, int], rng: np.random.Generator, *, share: float) -> NDArray[np.bool_]:
    """Return connected patches (H, W) that fill about a share of the ground."""
    field = gaussian_filter(rng.normal(size=sides), PATCH / 2, mode="reflect")
    found = field > np.quantile(field, 1 - share)
    regions, count = label(found)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    return np.asarray(found & (sizes[regions] >= 4))


def _seen(
    ends_CE: Numbers, shares_EHW: Numbers, config: SyntheticConfig, rng: np.random.Generator
) -> Cube:
    light_HW = 1 + config.light * gaussian_filter(
        rng.normal(size=shares_EHW.shape[1:]), 1.0, mode="reflect"
    ) * 2 * np.sqrt(np.pi)  # fmt: skip
    x_HWC = np.einsum("ce,ehw->hwc", ends_CE, shares_EHW) * light_HW[:, :, None]
    x_HWC = x_HWC + config.noise * rng.normal(size=x_HWC.shape)
    return new_cube(
        x_HWC.astype(np.float32), wavelength=np.linspace(*RANGE_NM, config.bands),
        source={"file": f"synthetic {config.kind}, seed {config.seed}", "axes": "HWC"},
    )  # fmt: skip
