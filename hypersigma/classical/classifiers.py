"""Classifiers of spectra alone that others trust: a support vector machine, a forest, a small CNN.

Shape letters: N pixels, C bands.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from torch import nn

type Spectra = NDArray[np.floating]
type Classes = NDArray[np.int64]
type Classify = Callable[[Spectra], Classes]

SVM_GRID = {"C": [1, 10, 100, 1000], "gamma": ["scale", 0.0003, 0.001, 0.003, 0.01]}
FOLDS = 5
TREES = 500
CNN_STEPS, CNN_RATE = 300, 1e-3
AT_ONCE = 4096
"""Pixels that the CNN looks at together."""


def fit_svm(x_NC: Spectra, class_N: Classes, seed: int) -> Classify:
    """Fit a support vector machine; its width and penalty are chosen on the training labels.

    Args:
        x_NC: Training spectra, standardised.
        class_N: Their classes.
        seed: Of the machine.

    Raises:
        ValueError: A class has a single pixel, of which no fold can be held out.
    """
    fewest = int(np.unique(class_N, return_counts=True)[1].min())
    if fewest < 2:
        raise ValueError(
            f"expected two training pixels a class or more, got {fewest}; say a larger n_per_class"
        )
    search = GridSearchCV(SVC(random_state=seed), SVM_GRID, cv=min(FOLDS, fewest))
    search.fit(x_NC, class_N)
    return lambda x_MC: np.asarray(search.predict(x_MC))


def fit_forest(x_NC: Spectra, class_N: Classes, seed: int) -> Classify:
    """Fit a random forest.

    Source: Breiman 2001, doi:10.1023/A:1010933404324.
    """
    forest = RandomForestClassifier(TREES, random_state=seed)
    forest.fit(x_NC, class_N)
    return lambda x_MC: np.asarray(forest.predict(x_MC))


def fit_cnn(x_NC: Spectra, class_N: Classes, seed: int) -> Classify:
    """Train a small 1-D CNN.

    Args:
        x_NC: Training spectra, standardised, of 13 bands or more.
        class_N: Their classes.
        seed: Of the weights.

    Raises:
        ValueError: Too few bands for its kernel and pooling.

    Source: after Hu et al. 2015, doi:10.1155/2015/258619.
    """
    bands = x_NC.shape[1]
    if bands < 13:
        raise ValueError(f"expected spectra of 13 bands or more, got {bands}")
    names, target_N = np.unique(class_N, return_inverse=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv1d(1, 20, 11), nn.Tanh(), nn.MaxPool1d(3), nn.Flatten(),
            nn.Linear(20 * ((bands - 10) // 3), 100), nn.Tanh(), nn.Linear(100, len(names)),
        )  # fmt: skip
    x = torch.from_numpy(x_NC.astype(np.float32))[:, None]
    target = torch.from_numpy(target_N)
    optimizer = torch.optim.AdamW(model.parameters(), CNN_RATE)
    for _ in range(CNN_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    def classify(x_MC: Spectra) -> Classes:
        parts = torch.from_numpy(x_MC.astype(np.float32))[:, None].split(AT_ONCE)
        with torch.inference_mode():
            found = torch.cat([model(part).argmax(1) for part in parts])
        return names[found.numpy()]

    return classify
