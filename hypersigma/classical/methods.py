"""What needs no network, task by task, as maps of a whole cube like those of the models.

Each takes a benchmark, the split of its labels (None where a task draws none) and a seed. A target
detector looks for the benchmark's `target_C`. Restorations are with their tasks, which know what
was done to the cube.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from hypersigma.classical import change, detection, unmixing
from hypersigma.classical.classifiers import (
    Classes,
    Classify,
    Spectra,
    fit_cnn,
    fit_forest,
    fit_svm,
)
from hypersigma.cubes.benchmarks import Benchmark
from hypersigma.cubes.cube import Cube
from hypersigma.cubes.preprocess import fit_standardize
from hypersigma.cubes.splits import Split

type Maps = dict[str, np.ndarray]
type Method = Callable[[Benchmark, Split | None, int], Maps]
type Image = NDArray[np.float64]

CHANGED = 2
"""Label of what changed."""


def classes(
    fit: Callable[[Spectra, Classes, int], Classify],
    benchmark: Benchmark,
    split: Split | None,
    seed: int,
) -> Maps:
    """Return `class` (H, W) by a classifier of spectra, standardised by the training pixels.

    Of two dates the spectra are the difference.
    """
    labels_HW, split = _labelled(benchmark, split)
    image_CHW = image_of(benchmark.cube)
    if benchmark.other is not None:
        image_CHW = image_of(benchmark.other) - image_CHW
    train_NC = image_CHW[:, split.train_HW].T
    scaling = fit_standardize(torch.from_numpy(train_NC))
    scaled_CHW = scaling(torch.from_numpy(image_CHW)[None])[0].numpy()
    classify = fit(scaled_CHW[:, split.train_HW].T, labels_HW[split.train_HW], seed)
    found_N = classify(scaled_CHW.reshape(len(scaled_CHW), -1).T)
    return {"class": found_N.reshape(benchmark.cube.sides).astype(np.int64)}


def anomalies(
    detect: Callable[[Image], Image], benchmark: Benchmark, split: Split | None, seed: int
) -> Maps:
    """Return `score` (H, W) of a detector that knows no target."""
    return {"score": detect(image_of(benchmark.cube))}


def targets(
    detect: Callable[[Image, Image], Image], benchmark: Benchmark, split: Split | None, seed: int
) -> Maps:
    """Return `score` (H, W) of a detector of the benchmark's target."""
    if benchmark.target_C is None:
        raise ValueError(
            f"{benchmark.name}: expected a target spectrum, got none; say where it comes from"
        )
    return {"score": detect(image_of(benchmark.cube), np.asarray(benchmark.target_C, np.float64))}


def changes(
    detect: Callable[[Image, Image], Image], benchmark: Benchmark, split: Split | None, seed: int
) -> Maps:
    """Return `score` and `class` (H, W): 2 where the score is above what parts training pixels."""
    labels_HW, split = _labelled(benchmark, split)
    if benchmark.other is None:
        raise ValueError(f"{benchmark.name}: expected two dates, got one; name the file as `other`")
    score_HW = detect(image_of(benchmark.cube), image_of(benchmark.other))
    level = threshold(score_HW[split.train_HW], labels_HW[split.train_HW] == CHANGED)
    return {"score": score_HW, "class": np.where(score_HW > level, CHANGED, 1)}


def unmixed(
    find: Callable[..., NDArray[np.int64]],
    solve: Callable[[Image, Image], Image],
    benchmark: Benchmark,
    split: Split | None,
    seed: int,
) -> Maps:
    """Return `abundances` (E, H, W) and `endmembers` (E, C), which are pixels found to be pure."""
    count = _count(benchmark)
    image_CHW = image_of(benchmark.cube)
    x_CN = image_CHW.reshape(len(image_CHW), -1)
    ends_CE = x_CN[:, find(x_CN, count, rng=np.random.default_rng(seed))]
    shares_EN = solve(x_CN, ends_CE)
    return {"abundances": shares_EN.reshape(count, *benchmark.cube.sides), "endmembers": ends_CE.T}


def threshold(score_N: Image, changed_N: NDArray[np.bool_]) -> float:
    """Return the level between two scores that parts the most training pixels rightly.

    Both classes count alike, whatever their numbers.
    """
    order = np.argsort(score_N)
    score_N, changed_N = score_N[order], changed_N[order]
    above = np.concatenate(([1.0], 1 - np.cumsum(changed_N) / changed_N.sum()))
    below = np.concatenate(([0.0], np.cumsum(~changed_N) / (~changed_N).sum()))
    ends = np.concatenate(([score_N[0] - 1], score_N, [score_N[-1] + 1]))
    best = int((above + below).argmax())
    return float((ends[best] + ends[best + 1]) / 2)


def image_of(cube: Cube) -> Image:
    """Return a cube (C, H, W) in physical units, the mean spectrum where nothing was measured."""
    image_CHW = cube.physical_CHW(np.float64)
    gaps_HW = ~cube.valid_HW
    if gaps_HW.any():
        image_CHW[:, gaps_HW] = image_CHW[:, cube.valid_HW].mean(1, keepdims=True)
    return image_CHW


def _labelled(benchmark: Benchmark, split: Split | None) -> tuple[NDArray[np.int64], Split]:
    if benchmark.labels_HW is None or split is None:
        raise ValueError(
            f"{benchmark.name}: expected labels and a split of them, got none; name the file as "
            "`labels`"
        )
    return benchmark.labels_HW, split


def _count(benchmark: Benchmark) -> int:
    if benchmark.endmembers_CE is not None:
        return int(benchmark.endmembers_CE.shape[1])
    if not benchmark.classes:
        raise ValueError(
            f"{benchmark.name}: expected the number of endmembers, got none; name them as `classes`"
        )
    return len(benchmark.classes)


CLASSIFIERS: dict[str, Method] = {
    "svm": partial(classes, fit_svm),
    "random_forest": partial(classes, fit_forest),
    "cnn_1d": partial(classes, fit_cnn),
}
METHODS: dict[str, dict[str, Method]] = {
    "patch_classification": CLASSIFIERS,
    "segmentation": CLASSIFIERS,
    "anomaly_detection": {
        "rx": partial(anomalies, detection.rx),
        "local_rx": partial(anomalies, detection.local_rx),
    },
    "target_detection": {
        "sam": partial(targets, detection.sam),
        "cem": partial(targets, detection.cem),
        "smf": partial(targets, detection.smf),
        "ace": partial(targets, detection.ace),
    },
    "change_detection": {
        "cva": partial(changes, change.cva),
        "ir_mad": partial(changes, change.irmad),
        "svm": partial(classes, fit_svm),
    },
    "unmixing": {
        "vca_fcls": partial(unmixed, unmixing.vca, unmixing.fcls),
        "vca_nnls": partial(unmixed, unmixing.vca, unmixing.nnls),
        "nfindr_fcls": partial(unmixed, unmixing.nfindr, unmixing.fcls),
    },
}
