"""Scaling of spectra as a part of the model: fitted on training pixels, stored with its weights."""

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Standardise bands, and turn them into principal components if asked, (B, C, H, W) -> same.

    A sample that is not finite becomes 0, the mean. Buffers travel in the state dict, so that a
    model applies to other data what its training pixels said.

    Args:
        bands: C of the input.
        components: Whitened principal components that come out; None: the bands themselves.
    """

    def __init__(self, bands: int, components: int | None = None) -> None:
        super().__init__()
        self.bands, self.out_bands = bands, components or bands
        self.mean_C: Tensor
        self.std_C: Tensor
        self.axes_KC: Tensor | None
        self.register_buffer("mean_C", torch.zeros(bands))
        self.register_buffer("std_C", torch.ones(bands))
        self.register_buffer(
            "axes_KC", None if components is None else torch.eye(components, bands)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.shape[1] != self.bands:
            raise ValueError(
                f"expected the {self.bands} bands that the scaling was fitted on, got "
                f"{x_BCHW.shape[1]}"
            )
        x_BCHW = (x_BCHW - self.mean_C[:, None, None]) / self.std_C[:, None, None]
        x_BCHW = torch.where(x_BCHW.isfinite(), x_BCHW, 0.0)
        if self.axes_KC is None:
            return x_BCHW
        return torch.einsum("kc,bchw->bkhw", self.axes_KC, x_BCHW)


def fit_standardize(x_NC: Tensor, *, components: int | None = None) -> Standardize:
    """Return the scaling of training spectra.

    Args:
        x_NC: Spectra of training pixels only; those that are not finite in all bands do not count.
        components: How many whitened principal components; None: none.

    Raises:
        ValueError: Fewer than two finite spectra, or more components than these or the bands allow.
    """
    known_NC = x_NC[x_NC.isfinite().all(1)].double()
    if len(known_NC) < 2:
        raise ValueError(
            f"expected two finite training spectra or more, got {len(known_NC)} of {len(x_NC)}; "
            "leave out bands without measurements"
        )
    model = Standardize(x_NC.shape[1], components)
    mean_C, std_C = known_NC.mean(0), known_NC.std(0)
    std_C = torch.where(std_C > 0, std_C, 1.0)
    model.mean_C.copy_(mean_C)
    model.std_C.copy_(std_C)
    if components is not None:
        most = min(len(known_NC) - 1, x_NC.shape[1])
        if components > most:
            raise ValueError(
                f"expected at most {most} components of {len(known_NC)} spectra in "
                f"{x_NC.shape[1]} bands, got {components}"
            )
        _, spread, axes_KC = torch.linalg.svd((known_NC - mean_C) / std_C, full_matrices=False)
        length_K = spread[:components].clamp_min(1e-12) / (len(known_NC) - 1) ** 0.5
        assert model.axes_KC is not None  # noqa: S101
        model.axes_KC.copy_(axes_KC[:components] / length_K[:, None])
    return model
