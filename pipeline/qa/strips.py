"""A scene's rows, one strip after the other: computed once, and what is kept of each."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from pipeline.cutting import row_strips
from pipeline.qa.quality import Bools, Floats, Ints
from pipeline.quality.detectors import DetectorColumns, detector_columns
from pipeline.quality.noise import noise
from pipeline.steps.geometry import broken, detectors_of, is_map
from storage.schema import TILE_SIZE

PREVIEW_SIDE = 1000
"""Most rows or columns of a preview."""
SAMPLE = 8000
"""About how many pixels the representative ones are chosen from."""
WINDOWS = 32
"""About how many windows the noise is measured in."""
CLEAR = 0.9
"""Least share of valid pixels without cloud in such a window."""


@dataclass(frozen=True)
class Plan:
    """What is taken of each strip."""

    variable: str
    """The stored one."""
    masks: tuple[str, ...]
    shown: tuple[int, ...]
    """Places on `band` of the preview's images."""
    step: int
    """From one row or column of the preview to the next."""
    sample_step: int
    """The same of the pixels whose whole spectrum is kept."""
    windows: int
    """Windows whose noise is measured, at most."""


@dataclass(frozen=True)
class Strip:
    """What is kept of some rows."""

    images: NDArray[np.float32]
    """(image, y, x), every `step`-th."""
    masks: Bools
    """(mask, y, x), every `step`-th; the first is `valid`."""
    counts: Ints
    """Pixels in each mask (mask)."""
    valid: Bools
    """(y, x), all rows and columns."""
    dead: Ints
    """Dead samples (band, x)."""
    row: Ints
    """Of the sampled pixels (sample)."""
    col: Ints
    spectra: NDArray[np.float32]
    """Of the sampled pixels (sample, band)."""
    noise: list[tuple[Floats, Floats]]
    """Signal and noise (band) of each window."""
    tiles: xr.Dataset
    """`reason` and the quality columns of the tiles that begin here."""


@dataclass(frozen=True)
class ColumnSums:
    """By detector, before and after the recipe's steps; empty of map products."""

    before: dict[str, DetectorColumns]
    after: dict[str, DetectorColumns]


def plan(prepared: xr.Dataset, variable: str, shown: Sequence[int]) -> Plan:
    """Return what to take of each strip so that all of it together stays small."""
    shape = prepared.sizes["y"], prepared.sizes["x"]
    strips = len(_bounds(prepared, variable)) - 1
    return Plan(
        variable,
        ("valid", *prepared.attrs.get("masks", ())),
        tuple(shown),
        max(1, math.ceil(max(shape) / PREVIEW_SIDE)),
        max(1, math.ceil(math.sqrt(math.prod(shape) / SAMPLE))),
        math.ceil(WINDOWS / max(strips, 1)),
    )


def column_sums(prepared: xr.Dataset) -> ColumnSums:
    """Return empty sums for each detector of a scene in sensor geometry."""
    if is_map(prepared):
        return ColumnSums({}, {})
    width = prepared.sizes["x"]
    before, after = (
        {name: detector_columns(place, width) for name, place in detectors_of(prepared).items()}
        for _ in range(2)
    )
    return ColumnSums(before, after)


def strips(
    prepared: xr.Dataset, tiles: xr.Dataset, wanted: Plan, sums: ColumnSums
) -> Iterator[Strip]:
    """Yield what is kept of each chunk of rows; reads each once, and adds to `sums`.

    Args:
        prepared: The scene before it is cut.
        tiles: Its tiles, of which the pixels are not computed.
        wanted: What to keep.
        sums: Takes in the columns' sums.
    """
    names = [wanted.variable, "dead", *wanted.masks]
    if sums.before:
        names += [name for name in ("dn", "dn_delivered", "flags") if name in prepared]
    bounds = _bounds(prepared, wanted.variable)
    columns = tiles.drop_vars(["tiles", "valid"])
    parts = _tile_parts(columns, bounds)
    for start, stop in pairwise(bounds):
        lazy = prepared[list(dict.fromkeys(names))].isel(y=slice(start, stop))
        fates = columns.isel(tile=parts.get(start, slice(0)))
        # Together, so that both come from one reading of the pixels.
        part, fates = compute(lazy, fates) if start in parts else (lazy.compute(), fates)
        if sums.before:
            _add_columns(sums, part, prepared)
        yield _kept(part, start, wanted, fates)


def _bounds(prepared: xr.Dataset, variable: str) -> list[int]:
    """Return where the strips that tiles are cut from begin, and where the last one ends."""
    chunks = prepared[variable].chunksizes.get("y", (prepared.sizes["y"],))
    return [0, *np.cumsum(row_strips(chunks)).tolist()]


def _tile_parts(columns: xr.Dataset, bounds: list[int]) -> dict[int, slice]:
    """Return the places of each chunk of tiles by the first row of the strip they begin in."""
    parts = {}
    stop = 0
    for count in columns.reason.data.chunks[0] if columns.sizes["tile"] else ():
        if count:
            first = int(columns.row[stop])
            strip = bounds[int(np.searchsorted(bounds, first, side="right")) - 1]
            parts[strip] = slice(stop, stop + count)
        stop += count
    return parts


def _add_columns(sums: ColumnSums, part: xr.Dataset, prepared: xr.Dataset) -> None:
    spoilt = broken(part, prepared.attrs)
    if "bad_detector" in prepared:
        spoilt &= ~prepared.bad_detector.values[:, None, :]
    delivered = part.dn_delivered if "dn_delivered" in part else part.dn
    for detectors, dn in ((sums.before, delivered), (sums.after, part.dn)):
        for detector in detectors.values():
            detector.add(dn.values, spoilt, prepared.attrs["nodata"])


def _kept(part: xr.Dataset, start: int, wanted: Plan, tiles: xr.Dataset) -> Strip:
    values = part[wanted.variable].transpose("band", "y", "x").values
    masks = np.stack([part[name].values for name in wanted.masks])
    valid = masks[0]
    thin = (..., slice(-start % wanted.step, None, wanted.step), slice(None, None, wanted.step))
    images = values[list(wanted.shown)][thin].astype("float32")
    some = np.zeros_like(valid)
    some[-start % wanted.sample_step :: wanted.sample_step, :: wanted.sample_step] = True
    row, col = np.nonzero(some & valid)
    dead = part.dead.transpose("band", "y", "x").values
    spectra = np.where(dead[:, row, col], np.nan, values[:, row, col]).T
    return Strip(
        np.where(masks[0][thin], images, np.float32(np.nan)), masks[thin],
        masks.sum(axis=(1, 2)), valid, dead.sum(axis=1),
        row + start, col, spectra.astype("float32"),
        [noise(values[window], valid[window[1:]]) for window in _clear_windows(masks, wanted)],
        tiles,
    )  # fmt: skip


def _clear_windows(masks: Bools, wanted: Plan) -> list[tuple[Any, slice, slice]]:
    """Return some of the strip's windows of clear ground, spread evenly over them."""
    clear = masks[0]
    if "cloud" in wanted.masks:
        clear = clear & ~masks[wanted.masks.index("cloud")]
    rows, cols = (range(0, size - TILE_SIZE + 1, TILE_SIZE) for size in clear.shape)
    windows = [(slice(r, r + TILE_SIZE), slice(c, c + TILE_SIZE)) for r in rows for c in cols]
    windows = [window for window in windows if clear[window].mean() >= CLEAR]
    number = min(len(windows), wanted.windows)
    places = ((np.arange(number) + 0.5) / max(number, 1) * len(windows)).astype(int)
    return [(slice(None), *windows[place]) for place in places.tolist()]
