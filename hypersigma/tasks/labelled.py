"""What tasks with labelled pixels share: training on windows of one image, classes of a whole one.

Shape letters: B batch, C bands, H W pixels, w window side, K classes.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from hypersigma.cubes.splits import Split
from hypersigma.metrics import classification_report, confusion_matrix
from hypersigma.tasks.classification import PatchClassifier
from hypersigma.tasks.crops import UNKNOWN, Crops, crop_batches
from hypersigma.tasks.dense import DenseTrunk, blended
from hypersigma.tasks.task import Facts, Maps, Prepared, TaskConfig


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class WindowOptions:
    """How a model looks at a cube."""

    window: PositiveInt = 64
    """Side of the windows that the model sees [pixel]; whole patches."""
    overlap: NonNegativeInt = 32
    """Pixels that neighbouring windows share when a whole cube is looked at."""
    noise: NonNegativeFloat = 0.1
    """While training, what each spectrum is shifted by, bands together, and each band of it, in
    standard deviations."""


class PixelClassifier(DenseTrunk):
    """A dense trunk of which the task makes logits (B, K, w, w), by its `forward`."""

    def loss(self, logits_AKww: Tensor, target_Bww: Tensor) -> Tensor:
        """Return the mean cross-entropy over pixels with a target (-1: none), a scalar.

        Classes weigh the same, however many pixels of them are in the windows. Logits may come more
        than once, one batch behind another.
        """
        target = target_Bww.repeat(len(logits_AKww) // len(target_Bww), 1, 1)
        counts_K = torch.bincount(target[target != UNKNOWN], minlength=logits_AKww.shape[1])
        weight_K = counts_K.clamp_min(1).reciprocal()
        return F.cross_entropy(logits_AKww, target, weight_K, ignore_index=UNKNOWN)


def prepared_labelled(
    config: TaskConfig,
    model: PixelClassifier | PatchClassifier,
    image_CHW: Tensor,
    labels_HW: np.ndarray,
    split: Split,
    facts: Facts,
    *,
    window: int,
    look: Callable[[nn.Module], Maps],
    report: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> Prepared[Crops]:
    """Return what trains a model of classes on the split's training pixels.

    Args:
        config: Of the run.
        model: From windows of the image to logits, of all their pixels (B, K, w, w) or of the
            middle ones (B, K), with a `loss`.
        image_CHW: All that the model sees.
        labels_HW: Classes 1..K; 0 is not labelled.
        split: Which of them train, validate and are measured on.
        facts: Of the data.
        window: Side w [pixel].
        look: Returns `class` (H, W), 1..K, of the whole image.
        report: From the classes found and the true ones (N), 0-based, to numbers.
    """
    target_HW = np.where(split.train_HW, labels_HW - 1, UNKNOWN)
    middle_only = isinstance(model, PatchClassifier)

    def losses(
        forward: Callable[..., Tensor], batch: Crops, rng: torch.Generator
    ) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        target = batch.target.to(device)
        if middle_only:
            target = target[:, window // 2, window // 2]
        logits = forward(batch.x.to(device))
        known = target != UNKNOWN
        right = (logits.detach()[: len(target)].argmax(1) == target)[known].float().mean()
        return {"loss": model.loss(logits, target), "oa": right}

    def measured(maps: Mapping[str, np.ndarray], where_HW: np.ndarray) -> dict[str, float]:
        return report(maps["class"][where_HW] - 1, labels_HW[where_HW] - 1)

    def evaluate() -> dict[str, float]:
        if not split.val_HW.any():
            return {}
        found = measured(look(model), split.val_HW)
        return {f"val_{name}": value for name, value in found.items()}

    return Prepared(
        model=model,
        batches=lambda state: crop_batches(
            image_CHW, target_HW, state, window=window, batch_size=config.train.batch_size,
            seed=config.train.seed, centred=middle_only,
        ),
        losses=losses,
        samples=lambda batch: batch.ids,
        evaluate=evaluate,
        score="val_oa" if split.val_HW.any() else None,
        maps=look,
        metrics=lambda maps: measured(maps, split.test_HW),
        facts=facts,
        split=split,
    )  # fmt: skip


def class_maps(model: nn.Module, image_CHW: Tensor, options: WindowOptions) -> Maps:
    """Return `class` (H, W), 1..K, and `probability` (K, H, W) of every pixel of an image."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        probability_KHW = blended(
            lambda x: model(x.to(device)).softmax(1), image_CHW, window=options.window,
            overlap=options.overlap,
        ).numpy()  # fmt: skip
    return {"class": probability_KHW.argmax(0) + 1, "probability": probability_KHW}


def class_numbers(found_N: np.ndarray, true_N: np.ndarray, classes: int) -> dict[str, float]:
    """Return overall and average accuracy, kappa, mean IoU, and each class's F1."""
    report = classification_report(confusion_matrix(found_N, true_N, classes))
    per_class = {f"f1_{entry['class'] + 1}": entry["f1"] for entry in report["per_class"]}
    return {name: report[name] for name in ("oa", "aa", "kappa", "miou")} | per_class
