"""What a task needs of a benchmark that `hypersigma.cubes.benchmarks.check` found to fit together.

Shape letters: C bands, H W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.cube import Cube
from hypersigma.tasks.task import TaskConfig


def image_of(cube: Cube) -> Tensor:
    """Return a cube as an image (C, H, W) in physical units, NaN where it has no measurement."""
    x_CHW = torch.from_numpy(cube.physical_CHW())
    x_CHW[:, ~torch.from_numpy(cube.valid_HW)] = torch.nan
    return x_CHW


def labels_of(benchmark: Benchmark) -> NDArray[np.int64]:
    """Return the labels (H, W), 0 where the cube has no measurement.

    Raises:
        ValueError: There are none, or classes have no names.
    """
    labels_HW = benchmark.labels_HW
    if labels_HW is None:
        raise ValueError(f"{benchmark.name}: expected labels, got none; name the file as `labels`")
    if labels_HW.max() > len(benchmark.classes):
        raise ValueError(
            f"{benchmark.name}: expected labels 0..{len(benchmark.classes)} for the classes "
            f"{list(benchmark.classes)}, got {labels_HW.max()}; name every class under `classes`"
        )
    return np.where(benchmark.cube.valid_HW, labels_HW, 0)


def mask_of(benchmark: Benchmark) -> NDArray[np.bool_]:
    """Return where targets or anomalies are (H, W).

    Raises:
        ValueError: There is no mask, or it is empty or full.
    """
    labels_HW, valid_HW = benchmark.labels_HW, benchmark.cube.valid_HW
    if labels_HW is None:
        raise ValueError(
            f"{benchmark.name}: expected a mask of targets, got none; name the file as `labels`"
        )
    mask_HW = (labels_HW > 0) & valid_HW
    if not 0 < mask_HW.sum() < valid_HW.sum():
        raise ValueError(
            f"{benchmark.name}: expected a mask with targets and background, got "
            f"{int(mask_HW.sum())} targets in {int(valid_HW.sum())} measured pixels; is the mask "
            "another array of the file? name it with `key`"
        )
    return mask_HW


def dates_of(benchmark: Benchmark) -> tuple[Cube, Cube]:
    """Return the cubes of both dates.

    Raises:
        ValueError: There is one only.
    """
    if benchmark.other is None:
        raise ValueError(
            f"{benchmark.name}: expected two dates, got one; name the second file as `other`"
        )
    return benchmark.cube, benchmark.other


def spectrum_of(target_C: NDArray[np.floating], cube: Cube, *, where: str) -> Tensor:
    """Return a target spectrum (C) in the cube's bands.

    Raises:
        ValueError: It has another number of bands, or values that are not finite.
    """
    if target_C.shape != (cube.bands,):
        raise ValueError(
            f"{where}: expected a target spectrum of the {cube.bands} bands of {cube.name}, got "
            f"{target_C.shape}; give its wavelengths, too, or bring it to the cube's"
        )
    if not np.isfinite(target_C).all():
        raise ValueError(
            f"{where}: expected finite values in {cube.bands} bands, got "
            f"{int((~np.isfinite(target_C)).sum())} others; leave these bands out of both"
        )
    return torch.from_numpy(np.asarray(target_C, np.float32))


def check_components(config: TaskConfig, components: int | None) -> None:
    """Refuse principal components for encoders that know bands.

    Raises:
        ValueError: Pretrained encoders are named beside them.
    """
    named = [kind for kind in ("spatial", "spectral") if getattr(config.pretrained, kind)]
    if components is not None and named:
        raise ValueError(
            f"expected bands for pretrained encoders ({', '.join(named)}), got options.components: "
            f"{components}; leave one of both out"
        )
