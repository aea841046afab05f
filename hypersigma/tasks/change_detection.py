"""Change detection: which pixels differ between two dates, from a few labelled ones.

The bands may be a hundred of a spectrometer or a handful of a multispectral camera.
Shape letters: B batch, C bands, H W pixels, w window side, K = 2: unchanged, changed.
"""

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

import configs
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.preprocess import Standardize, fit_standardize
from hypersigma.cubes.splits import draw_split
from hypersigma.metrics import classification_report, confusion_matrix
from hypersigma.tasks.checks import dates_of, image_of, labels_of
from hypersigma.tasks.crops import Crops
from hypersigma.tasks.dense import FEATURES, jittered
from hypersigma.tasks.labelled import PixelClassifier, WindowOptions, class_maps, prepared_labelled
from hypersigma.tasks.task import Facts, Maps, Prepared, Task, TaskConfig

CHANGED = 1
"""Class, 0-based, that counts as positive."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options(WindowOptions):
    """What `options` of a change detection may have."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of a pixel's features that the head does not see while training."""


class ChangeDetection(PixelClassifier):
    """Whether each pixel changed, (B, 2 C, w, w), one date after the other -> logits (B, 2, w, w).

    Both dates go through the same trunk; the head sees the size of the features' difference, so
    that the order of the dates does not matter.

    Args:
        facts: Bands and wavelengths of one date.
        config: Encoders and patches.
        options: Windows and regularisation.
    """

    def __init__(self, facts: Facts, config: TaskConfig, options: Options) -> None:
        super().__init__(facts, config, options.window)
        self.inputs = Standardize(facts.bands)
        self.noise = options.noise
        self.head = nn.Sequential(
            nn.Dropout2d(options.dropout), nn.Conv2d(FEATURES, FEATURES, 1), nn.GELU(),
            nn.Conv2d(FEATURES, 2, 1),
        )  # fmt: skip

    def forward(self, x_BDww: Tensor) -> Tensor:
        # Dates lie in the batch: one pass of the trunk, the same weights.
        x_ACww = self.inputs(torch.cat(x_BDww.chunk(2, 1)))
        if self.training and self.noise:
            x_ACww = jittered(x_ACww, self.noise)
        before, after = self.features(x_ACww).chunk(2)
        return self.head((after - before).abs())


def build(config: TaskConfig, facts: Facts) -> ChangeDetection:
    """Return the model of a config, untrained."""
    return ChangeDetection(facts, config, options_of(config))


def prepare(config: TaskConfig, benchmark: Benchmark) -> Prepared[Crops]:
    """Return what trains and measures a change detection of a benchmark.

    Raises:
        ValueError: There is one date only, or no labels of both classes.
    """
    cubes = dates_of(benchmark)
    if len(benchmark.classes) != 2:
        raise ValueError(
            f"{benchmark.name}: expected two classes, unchanged and changed, got "
            f"{list(benchmark.classes)}; say which stored numbers these are: values: [.., ..]"
        )
    labels_HW = np.where(cubes[1].valid_HW, labels_of(benchmark), 0)
    split = draw_split(labels_HW, config.split)
    images = [image_of(cube) for cube in cubes]
    facts = Facts.of(benchmark.cube, tuple(benchmark.classes))
    model = build(config, facts)
    train_HW = torch.from_numpy(split.train_HW)
    model.inputs = fit_standardize(torch.cat([image[:, train_HW].T for image in images]))
    options, both_DHW = options_of(config), torch.cat(images)
    return prepared_labelled(
        config, model, both_DHW, labels_HW, split, facts, window=options.window,
        look=lambda trained: class_maps(trained, both_DHW, options), report=numbers,
    )  # fmt: skip


def maps(config: TaskConfig, model: nn.Module, benchmark: Benchmark) -> Maps:
    """Return `class` (H, W), 1 unchanged, 2 changed, and `probability` (2, H, W)."""
    image = torch.cat([image_of(cube) for cube in dates_of(benchmark)])
    return class_maps(model, image, options_of(config))


def options_of(config: TaskConfig) -> Options:
    """Return the task's own options, checked."""
    return configs.check(Options, config.options, where="options of change_detection")


def numbers(found_N: np.ndarray, true_N: np.ndarray) -> dict[str, float]:
    """Return F1, precision and recall of change, kappa and overall accuracy."""
    report = classification_report(confusion_matrix(found_N, true_N, 2))
    changed = report["per_class"][CHANGED]
    return {
        "f1": changed["f1"], "precision": changed["precision"], "recall": changed["recall"],
        "kappa": report["kappa"], "oa": report["oa"],
    }  # fmt: skip


TASK = Task(prepare, build, maps)
