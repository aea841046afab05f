"""Patch classification of a cube: the class of a pixel from the window around it.

Shape letters: B batch, C bands, H W pixels, N pixels of a part, w window side, K classes.
"""

from typing import Annotated

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.preprocess import Standardize, fit_standardize
from hypersigma.cubes.splits import draw_split
from hypersigma.tasks.checks import check_components, image_of, labels_of
from hypersigma.tasks.classification import PatchClassifier, padded_size
from hypersigma.tasks.crops import Crops
from hypersigma.tasks.dense import at_a_time, jittered, mirrored
from hypersigma.tasks.labelled import class_numbers, prepared_labelled
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig, positions_nm
from hypersigma.tasks.trunk import build_encoders


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError("expected an odd number, with a pixel in the middle")
    return window


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options:
    """What `options` of a patch classification may have."""

    window: Annotated[PositiveInt, AfterValidator(_odd)] = 33
    """Side of the windows [pixel], odd: the pixel is in the middle."""
    noise: NonNegativeFloat = 0.1
    """While training, what each spectrum is shifted by, bands together, and each band of it, in
    standard deviations."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """What of the target is spread over all classes."""
    components: PositiveInt | None = None
    """Whitened principal components of the training pixels that the model sees, as published;
    null: the bands. Pretrained encoders know bands."""


class CubePatchClassifier(PatchClassifier):
    """Class of the middle pixel of a window, (B, C, w, w) as in the cube -> logits (B, K).

    Args:
        facts: Bands, wavelengths and classes.
        config: Encoders and patches.
        options: Windows and regularisation.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        seen = facts.reduced(options.components)
        spatial, spectral = build_encoders(
            config.mode, config.size, in_chans=seen.bands,
            spatial_size=padded_size(options.window, config.patch_size),
            spectral_size=options.window, patch_size=config.patch_size, ssa=config.ssa,
            recompute=config.train.recompute,
        )  # fmt: skip
        super().__init__(len(facts.classes), options.window, spatial=spatial, spectral=spectral)
        self.inputs, self.options = Standardize(facts.bands, options.components), options
        self.wavelength: Tensor
        self.register_buffer("wavelength", positions_nm(seen), persistent=False)

    def forward(self, x_BCww: Tensor, wavelength_BC: Tensor | None = None) -> Tensor:
        x_BCww = self.inputs(x_BCww)
        if self.training and self.options.noise:
            x_BCww = jittered(x_BCww, self.options.noise)
        return super().forward(x_BCww, self.wavelength[None])

    def loss(self, logits_BK: Tensor, target_B: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy, a scalar; classes are 0..K-1."""
        return super().loss(logits_BK, target_B, smoothing or self.options.smoothing)


def build(config: TaskConfig, facts: Facts) -> CubePatchClassifier:
    """Return the model of a config, untrained."""
    return CubePatchClassifier(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains and measures a patch classification of a benchmark.

    Raises:
        ValueError: The labels do not fit the cube, or are of one class only.
    """
    options, labels_HW = options_of(config), labels_of(benchmark)
    if config.cell_size is not None:
        raise ValueError(
            f"expected no cell_size, got {config.cell_size}: the spectral encoder looks at the "
            "whole window; leave it out"
        )
    check_components(config, options.components)
    split = draw_split(labels_HW, config.split)
    image_CHW = image_of(benchmark.cube)
    facts = Facts.of(benchmark.cube, tuple(benchmark.classes))
    model = build(config, facts)
    model.inputs = fit_standardize(
        image_CHW[:, torch.from_numpy(split.train_HW)].T, components=options.components
    )
    return prepared_labelled(
        config, model, image_CHW, labels_HW, split, facts, window=options.window,
        look=lambda trained: middle_maps(trained, image_CHW, options.window),
        report=lambda found, true: class_numbers(found, true, len(facts.classes)),
    )  # fmt: skip


def maps(config: TaskConfig, model: nn.Module, benchmark: Benchmark) -> Maps:
    """Return `class` (H, W), 1..K, and `probability` (K, H, W) of a cube."""
    return middle_maps(model, image_of(benchmark.cube), options_of(config).window)


def middle_maps(model: nn.Module, image_CHW: Tensor, window: int) -> Maps:
    """Return `class` and `probability` by a window for each pixel, mirrored at the border."""
    height, width = image_CHW.shape[1:]
    rows, columns = (
        torch.from_numpy(mirrored(np.arange(side + window - 1) - window // 2, side))
        for side in (height, width)
    )
    padded = image_CHW[:, rows[:, None], columns]
    windows_HWCww = padded.unfold(1, window, 1).unfold(2, window, 1).permute(1, 2, 0, 3, 4)
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        found_NK = torch.cat([
            model(windows_HWCww[row_N, column_N].to(device)).softmax(1).cpu()
            for part in places.split(at_a_time(window))
            for row_N, column_N in [part.T]
        ])  # fmt: skip
    probability_KHW = found_NK.T.unflatten(1, (height, width)).numpy()
    return {"class": probability_KHW.argmax(0) + 1, "probability": probability_KHW}


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of patch_classification")


TASK = Task(prepare, build, maps)
