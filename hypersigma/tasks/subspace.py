"""The few directions that a scene's spectra lie in, and what is corrected there.

Shape letters: B batch, C bands, K directions, H W pixels; N pixels, or images that come in;
O images that come out; F features; X = B * K.

Source: Zhuang & Bioucas-Dias 2018, doi:10.1109/JSTARS.2018.2796570 (an image is restored in the
subspace of its spectra).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAST_SCALE = 0.01
"""Of the last layer's first weights: corrections begin near 0."""
AROUND = 5
"""Pixels along the side of what is taken as a pixel's surroundings."""
LEAST_STD = 1e-4
CUTOFF = 2.5
"""Deviations of a band's noise from which on a value counts less than half."""
ROUNDS = 6


class Subspace(nn.Module):
    """Principal directions of training spectra; images to coefficients of deviation 1, and back.

    Args:
        bands: C.
        directions: K; at most as many as bands.
    """

    def __init__(self, bands: int, directions: int) -> None:
        super().__init__()
        self.mean_C: Tensor
        self.axes_CK: Tensor
        self.std_K: Tensor
        self.register_buffer("mean_C", torch.zeros(bands))
        self.register_buffer("axes_CK", torch.eye(bands)[:, :directions].clone())
        self.register_buffer("std_K", torch.ones(self.axes_CK.shape[1]))

    def fit(self, x_CN: Tensor) -> None:
        """Take the directions of training spectra that hold most of their power."""
        x = x_CN.double()
        mean_C = x.mean(1)
        centred = x - mean_C[:, None]
        values, vectors = torch.linalg.eigh(centred @ centred.T / x.shape[1])
        count = len(self.std_K)
        self.mean_C.copy_(mean_C)
        self.axes_CK.copy_(vectors.flip(1)[:, :count])
        self.std_K.copy_(values.flip(0)[:count].clamp(min=0).sqrt().clamp(min=LEAST_STD))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the coefficients (B, K, H, W), of deviation 1 over the training pixels."""
        centred = x_BCHW - self.mean_C[:, None, None]
        axes_CK = self.axes_CK / self.std_K
        return torch.einsum("bchw,ck->bkhw", centred, axes_CK)

    def back(self, coefficients_BKHW: Tensor) -> Tensor:
        """Return what these coefficients add to the mean spectrum, (B, C, H, W)."""
        return torch.einsum("bkhw,ck->bchw", coefficients_BKHW, self.axes_CK * self.std_K)

    def noise(self, apart_BCHW: Tensor) -> Tensor:
        """Return the coefficients' deviation (B, K) by noise, from what images differ by."""
        sigma_BC = 1.4826 * apart_BCHW.flatten(2).abs().median(2).values
        power_BK = sigma_BC.clamp(min=LEAST_STD) ** -2 @ self.axes_CK.square()
        return power_BK**-0.5 / self.std_K

    def robust(self, x_CHW: Tensor) -> Tensor:
        """Return what an image most likely is (C, H, W), by what its bands agree on.

        Bands count by how little noise they have, and values that lie far from what the others
        tell hardly count: dead lines, stripes and impulses. How the image's coefficients are
        spread is estimated with them (expectation maximisation).

        Source: Tipping & Bishop 1999, doi:10.1111/1467-9868.00196 (the estimate of spread);
        Holland & Welsch 1977, doi:10.1080/03610927708827533 (least squares with weights made
        anew), Geman & McClure 1987 (these weights).
        """
        axes_CK = self.axes_CK.double().cpu()
        mean_C1 = self.mean_C.double().cpu()[:, None]
        spread_KK = torch.diag(self.std_K.double().cpu() ** 2)
        middle_K = torch.zeros(len(spread_KK), dtype=torch.float64)
        x_CN = x_CHW.double().cpu().flatten(1) - mean_C1
        pairs_CX = (axes_CK[:, :, None] * axes_CK[:, None]).flatten(1)
        fit_CN = axes_CK @ (axes_CK.T @ x_CN)
        for _ in range(ROUNDS):
            apart_CN = (x_CN - fit_CN).abs()
            # 1.4826 median deviations are a normal distribution's standard deviation.
            sigma_C1 = (1.4826 * apart_CN.median(1, keepdim=True).values).clamp(min=LEAST_STD)
            weight_CN = (1 + (apart_CN / (CUTOFF * sigma_C1)).square()).pow(-2) / sigma_C1**2
            prior_KK = torch.linalg.inv(spread_KK)
            normal_NKK = prior_KK + (weight_CN.T @ pairs_CX).unflatten(1, prior_KK.shape)
            unsure_NKK = torch.linalg.inv(normal_NKK)
            right_NK = (weight_CN * x_CN).T @ axes_CK + prior_KK @ middle_K
            found_NK = (unsure_NKK @ right_NK[..., None])[..., 0]
            middle_K = found_NK.mean(0)
            spread_KK = found_NK.T.cov(correction=0) + unsure_NKK.mean(0)
            fit_CN = axes_CK @ found_NK.T
        return (fit_CN + mean_C1).unflatten(1, x_CHW.shape[1:]).float()


class Refiner(nn.Module):
    """Corrections from what differs around a pixel, (B, K, N, H, W) -> (B, K, O, H, W).

    All directions share its weights: a small scene has as many examples as it has directions. Of
    even ground it says 0, and of twice the contrast twice as much: no layer has a bias and the mean
    around a pixel is taken away, so that ground of another brightness than that trained on is no
    other case. Features of the ground say which of its channels count. It begins near 0.

    Args:
        inputs: Images N of each direction.
        features: Channels F of the features (B, F, H, W).
        outputs: Images O that come out of each direction.
        width: Channels inside.
        depth: Layers of 3 x 3, at least two.

    Source: Mohan et al. 2020, arXiv:1906.05478 (networks without biases).
    """

    def __init__(self, inputs: int, features: int, outputs: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.first = _conv(inputs, width)
        self.gate = nn.Conv2d(features, width, 1)
        last = _conv(width, outputs)
        with torch.no_grad():
            last.weight.mul_(LAST_SCALE)
        inner = [part for _ in range(depth - 2) for part in (nn.ReLU(), _conv(width, width))]
        self.body = nn.Sequential(*inner, nn.ReLU(), last)

    def forward(self, x_BKNHW: Tensor, features_BFHW: Tensor) -> Tensor:
        x_XNHW = x_BKNHW.flatten(0, 1)
        differing = x_XNHW - F.avg_pool2d(
            x_XNHW, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False
        )
        counts = 1 + torch.tanh(self.gate(features_BFHW))
        inside = self.first(differing).unflatten(0, x_BKNHW.shape[:2]) * counts[:, None]
        corrections: Tensor = self.body(inside.flatten(0, 1))
        return corrections.unflatten(0, x_BKNHW.shape[:2])


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate", bias=False)
