"""A noisy scene as a denoising model looks at it: its rows, and two estimates of what is clean.

Shape letters: C bands, n rows, W columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from hypersigma.mapping.sources import Source
from hypersigma.tasks.denoising import Denoising, estimates


class NoisySource(Source):
    """Scaled rows and their estimates, which are made of the rows that are asked for alone.

    Args:
        source: In physical units.
        model: Its scale and subspace make the estimates.
    """

    def __init__(self, source: Source, model: Denoising) -> None:
        self._source, self._model = source, model
        self.name, self.placed, self.units = source.name, source.placed, source.units
        self.height, self.width = source.height, source.width
        self.bands, self.wavelength = source.bands, source.wavelength

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the rows and both estimates (3 C, n, W), and which pixels are valid (n, W).

        Pixels without a measurement have the mean spectrum of those trained on.
        """
        x_CnW, valid_nW = self._source.rows(first, last)
        scaled_CnW = self._model.scale(torch.from_numpy(x_CnW)).numpy()
        return estimates(self._model, scaled_CnW, valid_nW).flatten(0, 1).numpy(), valid_nW
