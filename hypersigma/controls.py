"""Classical classifiers of spectra or features, that a network is compared with."""

import numpy as np
import torch
import torch.nn.functional as F

RIDGE = 1e-3
"""Weight of the squared coefficients in the logistic regression's loss."""
LBFGS_STEPS = 200


def nearest_mean(train: torch.Tensor, label: torch.Tensor, spectra: torch.Tensor) -> np.ndarray:
    """Give each spectrum (N, C) the class of the nearest class mean."""
    present = label.unique()
    means = torch.stack([train[label == number].mean(0) for number in present])
    return present[torch.cdist(spectra, means).argmin(1)].numpy()


def logistic_regression(
    train: torch.Tensor, label: torch.Tensor, spectra: torch.Tensor, classes: int
) -> np.ndarray:
    """Give each spectrum (N, C) the most probable class of a ridge logistic regression."""
    weight = torch.zeros(classes, train.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        value = (
            F.cross_entropy(F.linear(train, weight, bias), label) + RIDGE * weight.square().sum()
        )
        value.backward()
        return value.item()

    optimizer.step(loss)
    with torch.inference_mode():
        return F.linear(spectra, weight, bias).argmax(1).numpy()
