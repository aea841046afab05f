"""Image to patches to tokens.

Shape letters: B batch, C bands, H W pixels, p patch side, h w patches, L = h * w, V = p * p * C,
D width, P pixels of a picture.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma.layers.positions import resize_map


class PatchEmbed(nn.Module):
    """One token a patch, row by row, (B, C, H, W) -> (B, L, D).

    Pixels beyond the last whole patch are not seen.

    Args:
        in_chans: Bands C.
        dim: Token width D.
        patch_size: Pixels p along a patch side.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens and their grid (h, w)."""
        x_BDhw = self.proj(x_BCHW)
        return x_BDhw.flatten(2).transpose(1, 2), (x_BDhw.shape[2], x_BDhw.shape[3])

    def embed(self, patches_BLV: Tensor) -> Tensor:
        """Return the tokens of patches that are cut already; the same linear map as `forward`."""
        weight_DV = self.proj.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches_BLV, weight_DV, self.proj.bias)


class PictureMap(nn.Linear):
    """A linear map of whole square pictures (..., P) that takes pictures of other sizes, too."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return (..., D); for pictures of another size (H, W) the weights are resampled."""
        weight_DP = self.weight if size is None else resize_map(self.weight, size)
        return F.linear(x, weight_DP, self.bias)


def patchify(x_BCHW: Tensor, patch_size: int) -> Tensor:
    """Return the patches (B, L, V), row by row; inside one, the order is (row, column, band)."""
    x_BChpwq = x_BCHW.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return x_BChpwq.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches_BLV: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Return the images (B, C, H, W) that `patchify` cuts into these patches."""
    x_BhwpqC = patches_BLV.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, grid)
    return x_BhwpqC.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
