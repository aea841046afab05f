"""Semantic segmentation: the class of every pixel of a cube, from a few labelled ones.

Shape letters: B batch, C bands, H W pixels, w window side, K classes.
"""

import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.preprocess import Standardize, fit_standardize
from hypersigma.cubes.splits import draw_split
from hypersigma.tasks.checks import check_components, image_of, labels_of
from hypersigma.tasks.crops import Crops
from hypersigma.tasks.dense import FEATURES, jittered
from hypersigma.tasks.labelled import (
    PixelClassifier,
    WindowOptions,
    class_maps,
    class_numbers,
    prepared_labelled,
)
from hypersigma.tasks.smoothing import Smooth
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig
from hypersigma.tasks.trunk import REDUCED


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options(WindowOptions):
    """What `options` of a segmentation may have."""

    context_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the windows whose surroundings the head does not see while training: with a few
    labels it would learn them by heart."""
    reach: NonNegativeInt = 4
    """Pixels to each side that a pixel's logits are smoothed over, see `Smooth`; 0: none."""
    components: PositiveInt | None = None
    """Whitened principal components of the training pixels that the model sees, as published;
    null: the bands. Pretrained encoders know bands."""


class Segmentation(PixelClassifier):
    """Class of every pixel of a window, (B, C, w, w) as in the cube -> logits (B, K, w, w).

    The pixel's own spectrum and its surroundings vote; then neighbours that look alike do. While
    training, the logits before that come behind those after it, (2 B, K, w, w).

    Args:
        facts: Bands, wavelengths and classes.
        config: Encoders and patches.
        options: Windows and regularisation.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        super().__init__(facts.reduced(options.components), config, options.window)
        self.inputs = Standardize(facts.bands, options.components)
        self.noise = options.noise
        self.context_dropout = options.context_dropout
        self.head = nn.Conv2d(REDUCED, len(facts.classes), 1)
        self.context_head = nn.Conv2d(REDUCED, len(facts.classes), 1)
        self.smooth = Smooth(FEATURES, options.reach) if options.reach else None

    def forward(self, x_BCww: Tensor) -> Tensor:
        x_BCww = self.inputs(x_BCww)
        if self.training and self.noise:
            x_BCww = jittered(x_BCww, self.noise)
        features = self.features(x_BCww)
        own, context = features.chunk(2, 1)
        if self.training:
            seen_B111 = torch.rand(len(context), 1, 1, 1, device=context.device)
            context = context * (seen_B111 >= self.context_dropout)
        logits = self.head(own) + self.context_head(context)
        if self.smooth is None:
            return logits
        smoothed = self.smooth(logits, features)
        # Trained through the mean alone, single pixels would be told apart less well.
        return torch.cat((smoothed, logits)) if self.training else smoothed


def build(config: TaskConfig, facts: Facts) -> Segmentation:
    """Return the model of a config, untrained."""
    return Segmentation(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains and measures a segmentation of a benchmark.

    Raises:
        ValueError: The labels do not fit the cube, or are of one class only.
    """
    check_components(config, options_of(config).components)
    labels_HW = labels_of(benchmark)
    split = draw_split(labels_HW, config.split)
    image_CHW = image_of(benchmark.cube)
    facts, options = Facts.of(benchmark.cube, tuple(benchmark.classes)), options_of(config)
    model = build(config, facts)
    model.inputs = fit_standardize(
        image_CHW[:, torch.from_numpy(split.train_HW)].T, components=options.components
    )
    return prepared_labelled(
        config, model, image_CHW, labels_HW, split, facts, window=options.window,
        look=lambda trained: class_maps(trained, image_CHW, options),
        report=lambda found, true: class_numbers(found, true, len(facts.classes)),
    )  # fmt: skip


def maps(config: TaskConfig, model: nn.Module, benchmark: Benchmark) -> Maps:
    """Return `class` (H, W), 1..K, and `probability` (K, H, W) of a cube."""
    return class_maps(model, image_of(benchmark.cube), options_of(config))


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of segmentation")


TASK = Task(prepare, build, maps)
