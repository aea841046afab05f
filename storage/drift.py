"""How far the pixels of one version are from those of another, band by band."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from storage.statistics import Sums, load_sums
from storage.versions import find_version

NOTABLE, LARGE = 0.1, 0.25
"""Rules of thumb: below the first, no change to speak of; from the second on, another population.

Source: Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14(4), abstract.
"""
_GROUPS = 10
_FEW = 0.5
"""Added to each group's count, so that a group that one version has not gives no infinity."""


@dataclass(frozen=True)
class Drift:
    """Population stability index (PSI) of one sensor's bands between two versions."""

    max: float | None
    """None where no band can be compared: it has no pixels in one of the versions."""
    median: float | None
    notable: tuple[int, ...]
    """Bands (the product's numbers) with 0.1 or more, those of `large` among them."""
    large: tuple[int, ...]
    """Bands with 0.25 or more."""
    bands: Mapping[int, float]
    """PSI by band."""


def psi(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the PSI (band) of counts `b` against counts `a`, both (band, bin) of the same bins.

    The bins are put into ten groups at the deciles of `a`; with `p` and `q` the shares of `a` and
    `b` in a group, PSI is the sum over groups of (q - p) ln(q / p). NaN where one has no pixels.

    Source: Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14(4).
    """
    found = np.full(len(a), np.nan)
    for band, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.any() and other.any():
            below = np.cumsum(one)
            deciles = below[-1] * np.arange(1, _GROUPS) / _GROUPS
            starts = np.unique(np.r_[0, np.searchsorted(below, deciles) + 1])
            starts = starts[starts < len(one)]
            p, q = (_shares(np.add.reduceat(counts, starts)) for counts in (one, other))
            found[band] = ((q - p) * np.log(q / p)).sum()
    return found


def drift(repo: icechunk.Repository, a: str, b: str) -> dict[str, Drift]:
    """Return the PSI of each sensor that both versions have, `a` being the reference.

    All splits together, from the versions' sketches: no scene is read. Empty for versions of
    before there were sketches.

    Raises:
        storage.schema.SchemaError: There is no such version.
    """
    old, new = (_sums(repo, version) for version in (a, b))
    return {
        name: _drift(old[name], new[name])
        for name in sorted(old.keys() & new)
        if old[name].kind == new[name].kind
    }


def _sums(repo: icechunk.Repository, version: str) -> dict[str, Sums]:
    session = repo.readonly_session(snapshot_id=find_version(repo, version).snapshot)
    return load_sums(zarr.open_group(session.store, mode="r"))


def _drift(old: Sums, new: Sums) -> Drift:
    first = min(old.first, new.first)
    last = max(sums.first + sums.counts.shape[2] for sums in (old, new))
    counts = []
    for sums in (old, new):
        start = sums.first - first
        pad = (start, last - first - start - sums.counts.shape[2])
        counts.append(np.pad(sums.counts.sum(axis=0), ((0, 0), pad)))
    values: list[float] = psi(*counts).tolist()
    bands: list[Any] = old.kind["band"]
    known = {int(n): v for n, v in zip(bands, values, strict=True) if np.isfinite(v)}
    return Drift(
        max=max(known.values(), default=None),
        median=float(np.median(list(known.values()))) if known else None,
        notable=tuple(n for n, value in known.items() if value >= NOTABLE),
        large=tuple(n for n, value in known.items() if value >= LARGE),
        bands=known,
    )


def _shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    some = counts + _FEW
    return np.asarray(some / some.sum())
