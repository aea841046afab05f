"""Images beside the true ones: denoising and super-resolution.

Shape letters: C bands, H W pixels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

type Numbers = NDArray[np.floating]

SSIM_SIGMA, SSIM_REACH = 1.5, 5
"""Gaussian window of 11 pixels. Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861."""


def restoration_report(
    found_CHW: Numbers, true_CHW: Numbers, *, peak: float, ratio: float = 1.0
) -> dict[str, float]:
    """Return how near an image comes to the true one.

    Args:
        found_CHW: The restored image.
        true_CHW: The true one.
        peak: Largest value that the data may have, such as 1 for reflectance.
        ratio: Pixels of the true image along a pixel of the one that was restored; ERGAS.

    Returns:
        `psnr` [dB] and `ssim`, means over bands; `sam` [deg], mean over pixels that are not 0 in
        either; `ergas`; `rmse`.

    Raises:
        ValueError: Shapes differ, or a value is not finite.
    """
    if found_CHW.shape != true_CHW.shape or true_CHW.ndim != 3:
        raise ValueError(
            f"expected two images (band, y, x) of one shape, got {found_CHW.shape} "
            f"and {true_CHW.shape}"
        )
    found, true = (np.asarray(image, np.float64) for image in (found_CHW, true_CHW))
    if not (np.isfinite(found).all() and np.isfinite(true).all()):
        raise ValueError("expected finite values, got others; crop or fill them first")
    return {
        "psnr": psnr(found, true, peak=peak),
        "ssim": float(np.mean([ssim(a, b, peak=peak) for a, b in zip(found, true, strict=True)])),
        "sam": sam(found, true),
        "ergas": ergas(found, true, ratio=ratio),
        "rmse": float(np.sqrt(np.square(found - true).mean())),
    }


def psnr(found_CHW: Numbers, true_CHW: Numbers, *, peak: float) -> float:
    """Return the mean over bands of the peak signal-to-noise ratio [dB]; infinite if one is equal.

    Source: Huynh-Thu & Ghanbari 2008, doi:10.1049/el:20080522.
    """
    error_C = np.square(found_CHW - true_CHW).mean((1, 2))
    with np.errstate(divide="ignore"):
        return float(np.mean(10 * np.log10(peak**2 / error_C)))


def ssim(found_HW: Numbers, true_HW: Numbers, *, peak: float) -> float:
    """Return the mean structural similarity of a band, over windows that lie inside.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13 and section III.C.

    Raises:
        ValueError: The band is smaller than a window.
    """
    side = 2 * SSIM_REACH + 1
    if min(true_HW.shape) < side:
        raise ValueError(f"expected bands of at least {side} x {side} px, got {true_HW.shape}")
    mean_a, mean_b = _smooth(found_HW), _smooth(true_HW)
    var_a = _smooth(found_HW**2) - mean_a**2
    var_b = _smooth(true_HW**2) - mean_b**2
    both = _smooth(found_HW * true_HW) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    likeness = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(likeness.mean())


def sam(found_CHW: Numbers, true_CHW: Numbers) -> float:
    """Return the mean angle between the spectra of pixels [deg]; pixels of zeros are left out.

    Source: Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N.
    """
    lengths = [np.linalg.norm(image, axis=0) for image in (found_CHW, true_CHW)]
    known = (lengths[0] > 0) & (lengths[1] > 0)
    a, b = (
        image[:, known] / length[known]
        for image, length in zip((found_CHW, true_CHW), lengths, strict=True)
    )
    angle = 2 * np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0))
    return float(np.degrees(angle).mean())


def ergas(found_CHW: Numbers, true_CHW: Numbers, *, ratio: float) -> float:
    """Return the relative global error, 0 if the images are equal.

    Source: Wald 2000, "Quality of high resolution synthesised images".
    """
    error_C = np.square(found_CHW - true_CHW).mean((1, 2))
    return float(100 / ratio * np.sqrt((error_C / np.square(true_CHW.mean((1, 2)))).mean()))


def _smooth(image_HW: Numbers) -> Numbers:
    """Return Gaussian means of the windows that lie inside."""
    reach = SSIM_REACH
    weight = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / SSIM_SIGMA))
    weight /= weight.sum()
    for axis in (0, 1):
        image_HW = correlate1d(image_HW, weight, axis=axis)
    return image_HW[reach:-reach, reach:-reach]
