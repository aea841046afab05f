"""Linear unmixing: endmembers from the pixels, and abundances from endmembers.

Shape letters: C bands, N pixels, K endmembers.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

type Numbers = NDArray[np.floating]

SUM_WEIGHT = 1e3
"""Weight of the sum to one beside the bands, in units of the largest value."""


def vca(x_CN: Numbers, count: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return which pixels are the purest, by vertex component analysis (K).

    The pixel that lies farthest in a random direction at right angles to those found so far is the
    next. Low signal-to-noise is brought to the mean's plane, as published.

    Args:
        x_CN: Spectra.
        count: Endmembers K.
        rng: Of the directions.

    Raises:
        ValueError: Fewer pixels or bands than endmembers, or values that are not finite.

    Source: Nascimento & Dias 2005, doi:10.1109/TGRS.2005.844293.
    """
    y_KN = _projected(_checked(x_CN, count), count)
    found = np.zeros(count, np.int64)
    corners = np.zeros((count, count))
    corners[-1, 0] = 1
    for number in range(count):
        direction = rng.normal(size=count)
        direction -= corners @ np.linalg.pinv(corners) @ direction
        found[number] = np.abs(direction @ y_KN).argmax()
        corners[:, number] = y_KN[:, found[number]]
    return found


def nfindr(
    x_CN: Numbers, count: int, *, rng: np.random.Generator, rounds: int = 20
) -> NDArray[np.int64]:
    """Return the pixels that span the largest simplex (K), from those that `vca` finds.

    Each is replaced by the pixel that makes the volume largest, until none does.

    Args:
        x_CN: Spectra.
        count: Endmembers K.
        rng: Of the first ones.
        rounds: Passes over the endmembers, at most.

    Raises:
        ValueError: As `vca`.

    Source: Winter 1999, doi:10.1117/12.366289.
    """
    x = _checked(x_CN, count)
    found = vca(x, count, rng=rng)
    centred = x - x.mean(1, keepdims=True)
    reduced = _subspace(centred, count - 1).T @ centred
    y_KN = np.vstack((reduced, np.ones(x.shape[1])))
    for _ in range(rounds):
        before = found.copy()
        for number in range(count):
            # The determinant is linear in this corner: its cofactors give all volumes at once.
            corners = y_KN[:, found].copy()
            cofactors = np.empty(count)
            for row in range(count):
                minor = np.delete(np.delete(corners, row, 0), number, 1)
                cofactors[row] = (-1) ** (row + number) * np.linalg.det(minor)
            found[number] = np.abs(cofactors @ y_KN).argmax()
        if np.array_equal(before, found):
            break
    return found


def nnls(x_CN: Numbers, ends_CK: Numbers) -> NDArray[np.float64]:
    """Return abundances (K, N) that are not negative and fit best.

    Source: Lawson & Hanson 1974; SciPy's.
    """
    _check_bands(x_CN, ends_CK)
    ends = np.asarray(ends_CK, np.float64)
    return np.stack([optimize.nnls(ends, x)[0] for x in np.asarray(x_CN, np.float64).T], 1)


def fcls(x_CN: Numbers, ends_CK: Numbers) -> NDArray[np.float64]:
    """Return abundances (K, N) that are not negative, sum to one, and fit best.

    Source: Heinz & Chang 2001, doi:10.1109/36.911111.
    """
    _check_bands(x_CN, ends_CK)
    weight = SUM_WEIGHT * max(float(np.abs(ends_CK).max()), float(np.abs(x_CN).max()))
    ends = np.vstack((ends_CK, np.full(ends_CK.shape[1], weight)))
    shares = nnls(np.vstack((x_CN, np.full(x_CN.shape[1], weight))), ends)
    return np.asarray(shares / shares.sum(0))


def _projected(x_CN: Numbers, count: int) -> Numbers:
    """Return pixels in the K dimensions in which `vca` looks for corners."""
    mean = x_CN.mean(1, keepdims=True)
    centred = x_CN - mean
    basis = _subspace(centred, count)
    reduced = basis.T @ centred
    power, kept = (x_CN**2).sum(0).mean(), (reduced**2).sum(0).mean() + (mean**2).sum()
    signal = kept - count / len(x_CN) * power
    noise = power - kept
    if noise > 0 and signal / noise < 10 ** (1.5) * count:  # 15 dB + 10 log10 K
        reduced = _subspace(centred, count - 1).T @ centred
        longest = np.sqrt((reduced**2).sum(0).max())
        return np.vstack((reduced, np.full(x_CN.shape[1], longest)))
    projected = _subspace(x_CN, count).T @ x_CN
    return projected / (projected.mean(1) @ projected)


def _subspace(x_CN: Numbers, count: int) -> Numbers:
    """Return the directions (C, count) that hold most of the power."""
    _, vectors = np.linalg.eigh(x_CN @ x_CN.T / x_CN.shape[1])
    return vectors[:, ::-1][:, :count]


def _checked(x_CN: Numbers, count: int) -> NDArray[np.float64]:
    if not 1 < count <= min(x_CN.shape):
        raise ValueError(
            f"expected from 2 to {min(x_CN.shape)} endmembers of {x_CN.shape[1]} pixels in "
            f"{len(x_CN)} bands, got {count}"
        )
    if not np.isfinite(x_CN).all():
        raise ValueError("expected finite values, got others; leave these pixels or bands out")
    return np.asarray(x_CN, np.float64)


def _check_bands(x_CN: Numbers, ends_CK: Numbers) -> None:
    if len(x_CN) != len(ends_CK):
        raise ValueError(
            f"expected endmembers of the pixels' {len(x_CN)} bands, got {len(ends_CK)}"
        )
