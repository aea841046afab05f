"""What both detections share: training on implanted targets, scores of a whole image.

Shape letters: B batch, C bands, H W pixels, w window side.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.preprocess import fit_standardize
from hypersigma.cubes.splits import Split
from hypersigma.metrics import detection_report
from hypersigma.tasks.checks import image_of
from hypersigma.tasks.crops import UNKNOWN, Crops, crop_batches
from hypersigma.tasks.dense import blended
from hypersigma.tasks.detector import Detector, DetectorOptions
from hypersigma.tasks.implants import implanted
from hypersigma.tasks.task import Facts, Maps, Prepared, TaskConfig
from hypersigma.tasks.whitening import fit_whiten


def prepared_detector(
    config: TaskConfig,
    options: DetectorOptions,
    model: Detector,
    benchmark: Benchmark,
    hit_HW: np.ndarray,
    where_HW: np.ndarray,
) -> Prepared[Crops]:
    """Return what trains a detector on an image without any label of it.

    Args:
        config: Of the run.
        options: Of the task.
        model: Scaling and whitening are fitted here, on all measured pixels.
        benchmark: The image.
        hit_HW: Where targets are.
        where_HW: Which pixels are measured on.
    """
    image_CHW, valid_HW = image_of(benchmark.cube), benchmark.cube.valid_HW
    spectra_NC = image_CHW[:, torch.from_numpy(valid_HW)].T
    model.inputs, model.whiten = fit_standardize(spectra_NC), fit_whiten(image_CHW)
    background_HW = np.where(valid_HW, 0, UNKNOWN)

    def losses(
        forward: Callable[..., Tensor], batch: Crops, rng: torch.Generator
    ) -> dict[str, Tensor]:
        device = model.wavelength.device
        target_C = None if model.target_C is None else model.target_C.cpu()
        x, hit = implanted(batch.x, options.implants, options.side, rng, target_C)
        logits = forward(x.to(device))
        return {"loss": model.loss(logits, torch.where(hit, 1, batch.target).to(device))}

    def metrics(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
        return detection_report(maps["score"][where_HW], hit_HW[where_HW])

    return Prepared(
        model=model,
        batches=lambda state: crop_batches(
            image_CHW, background_HW, state, window=options.window,
            batch_size=config.train.batch_size, seed=config.train.seed,
        ),
        losses=losses,
        samples=lambda batch: batch.ids,
        evaluate=dict,
        score=None,
        maps=lambda trained: score_maps(trained, image_CHW, options),
        metrics=metrics,
        facts=Facts.of(benchmark.cube),
        split=Split(np.zeros_like(where_HW), np.zeros_like(where_HW), where_HW),
    )  # fmt: skip


def score_maps(model: torch.nn.Module, image_CHW: Tensor, options: DetectorOptions) -> Maps:
    """Return `score` (H, W), larger where a target is likelier: a logit."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        score_1HW = blended(
            lambda x: model(x.to(device)), image_CHW, window=options.window,
            overlap=options.overlap,
        )  # fmt: skip
    return {"score": score_1HW[0].numpy()}
