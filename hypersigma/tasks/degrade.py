"""What a sensor of larger pixels sees: the image blurred by its point spread, then thinned out.

Shape letters: B batch, C bands, H W pixels, h w large pixels, r ratio, k kernel side.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RATIOS = (2, 4, 8)

MTF_NYQUIST = 0.3
"""Contrast that the sensor of larger pixels keeps at its Nyquist frequency; usual are 0.2 to 0.35.

Source: Aiazzi et al. 2006, doi:10.14358/PERS.72.5.591.
"""

REACH = 3.0
"""Deviations of the point spread after which it is cut off."""


def degrade(x_BCHW: Tensor, ratio: int, *, mtf: float = MTF_NYQUIST) -> Tensor:
    """Return images of `ratio` times larger pixels, (B, C, H / r, W / r).

    A large pixel's centre is that of the r x r small ones that it covers; beyond the border the
    image is continued by its outermost pixels.

    Args:
        x_BCHW: Images.
        ratio: Small pixels r along a large one: 2, 4 or 8.
        mtf: What the point spread keeps of a wave of two large pixels, in (0, 1).

    Raises:
        ValueError: Another ratio, or one that does not divide the image's sides.
    """
    check_ratio(ratio, (x_BCHW.shape[2], x_BCHW.shape[3]))
    kernel_k = point_spread(ratio, mtf=mtf).to(x_BCHW)
    pad = (len(kernel_k) - ratio) // 2
    x = F.pad(x_BCHW, (pad, pad, pad, pad), mode="replicate").flatten(0, 1)[:, None]
    x = F.conv2d(x, kernel_k[None, None, :, None], stride=(ratio, 1))
    x = F.conv2d(x, kernel_k[None, None, None], stride=(1, ratio))
    return x[:, 0].unflatten(0, x_BCHW.shape[:2])


def point_spread(ratio: int, *, mtf: float = MTF_NYQUIST) -> Tensor:
    """Return the point spread along one side, in small pixels (k), its sum 1; k is even.

    It is a Gaussian whose transform is `mtf` at the frequency 1 / (2 r).

    Raises:
        ValueError: `mtf` is not in (0, 1).
    """
    if not 0 < mtf < 1:
        raise ValueError(f"mtf must be in (0, 1), got {mtf}")
    sigma = ratio / math.pi * math.sqrt(-2 * math.log(mtf))
    half = max(ratio // 2, math.ceil(REACH * sigma))
    place_k = torch.arange(-half, half, dtype=torch.float64) + 0.5
    kernel_k = torch.exp(-0.5 * (place_k / sigma) ** 2)
    return kernel_k / kernel_k.sum()


def enlarge(x_BChw: Tensor, ratio: int) -> Tensor:
    """Return images `ratio` times as large by cubic convolution, as `classical.bicubic`."""
    return F.interpolate(
        x_BChw, scale_factor=ratio, mode="bicubic", align_corners=False, antialias=True
    )


def check_ratio(ratio: int, sides: tuple[int, int]) -> None:
    """Refuse a ratio that an image cannot be degraded by.

    Raises:
        ValueError: It is not 2, 4 or 8, or does not divide a side.
    """
    if ratio not in RATIOS:
        raise ValueError(f"ratio: expected one of {RATIOS}, got {ratio}")
    if any(side % ratio for side in sides):
        whole = " x ".join(str(side - side % ratio) for side in sides)
        raise ValueError(
            f"ratio {ratio} does not divide an image of {sides[0]} x {sides[1]} px; cut it to "
            f"{whole} px (cut: true in the options does), or take another ratio"
        )
