"""Which detectors measure nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.steps.geometry import (
    MAP_GEOMETRY,
    check_first,
    detectors_of,
    is_map,
    recorded,
    row_spans,
)

_DEAD_FLAGS = (2, 3)
"""Dead and flat of the Hyperion flag mask (USGS EO-1 FAQ 22)."""
_LONGEST_RUN = 2
"""Empty columns side by side that are still detectors; more are dark ground."""
_LEAST_SPREAD = 8
"""Counts by which half of a band's columns vary at least where a constant one is stuck."""

type Bools = NDArray[np.bool_]
type Counts = NDArray[np.int64]


def detectors(scene: xr.Dataset, *, flagged_share: float = 0.5, min_rows: int = 32) -> xr.Dataset:
    """Add `bad_detector` (band, x) bool: which columns of which bands are dead or stuck.

    Reads the scene once when it is called, a chunk of rows at a time; the pixels stay lazy.
    For one of these reasons, the first that holds:
    - `flagged`: flags say dead or flat (2, 3) in more than `flagged_share` of the rows.
    - `empty`: nodata in all rows that hold data elsewhere, while the nearest columns on both
      sides measure in most of them; one or two such columns, as more may be dark ground.
    - `stuck`: one and the same value in all of these rows, while half of the band's
      columns vary by 8 counts or more and do not end at that value.

    A band that is nodata throughout is not calibrated and has no bad detectors. The step's record
    counts them by detector and reason. Map products pass unchanged.

    Args:
        scene: `dn` (band, y, x), `flags` if the product has them.
        flagged_share: Share of flagged rows from which on a detector is bad [1].
        min_rows: Rows with data that it takes to judge a column.
    """
    step: dict[str, Any] = {"step": "detectors", "flagged_share": flagged_share,
                            "min_rows": min_rows}  # fmt: skip
    check_first(scene, "detectors")
    if is_map(scene):
        return recorded(scene, {**step, "applied": False, "why": MAP_GEOMETRY})
    reasons = _reasons(_count(scene), flagged_share, min_rows)
    bad = np.logical_or.reduce(list(reasons.values()))
    found = {
        name: {reason: int(columns[place].sum()) for reason, columns in reasons.items()}
        for name, place in detectors_of(scene).items()
    }
    scene = scene.assign(bad_detector=(("band", "x"), bad))
    return recorded(scene, {**step, "applied": True, "found": found})


def _count(scene: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Return per band and column: rows with data, `nodata` and flagged rows, least and largest."""
    shape = (scene.sizes["band"], scene.sizes["x"])
    limits = np.iinfo(scene.dn.dtype)
    counts: dict[str, NDArray[Any]] = {
        "rows": np.zeros(shape[1], np.int64), "empty": np.zeros(shape, np.int64),
        "flagged": np.zeros(shape, np.int64), "measured": np.zeros(shape, np.int64),
        "least": np.full(shape, limits.max, np.int64),
        "largest": np.full(shape, limits.min, np.int64),
    }  # fmt: skip
    for _, part in row_spans(scene):
        _add(counts, part, scene.attrs, limits)
    return counts


def _add(
    counts: dict[str, NDArray[Any]], part: xr.Dataset, attrs: Mapping[Any, Any], limits: Any
) -> None:
    dn = part.dn.values
    void = dn == attrs["fill"] if "fill" in attrs else np.zeros(dn.shape, bool)
    empty = dn == attrs["nodata"]
    data = ~(void | empty).all(axis=0)
    counts["rows"] += data.sum(axis=0)
    counts["empty"] += (empty & data).sum(axis=1)
    if "flags" in part:
        counts["flagged"] += (np.isin(part.flags.values, _DEAD_FLAGS) & data).sum(axis=1)
        void |= np.isin(part.flags.values, (1, 4))
    void |= ~data
    counts["measured"] += (~void).sum(axis=1)
    counts["least"] = np.minimum(counts["least"], np.where(void, limits.max, dn).min(axis=1))
    counts["largest"] = np.maximum(counts["largest"], np.where(void, limits.min, dn).max(axis=1))


def _reasons(
    counts: dict[str, NDArray[Any]], flagged_share: float, min_rows: int
) -> dict[str, Bools]:
    """Return which detectors (band, x) are bad for which reason."""
    rows: Counts = counts["rows"]
    enough = (rows >= min_rows)[None]
    live = ((counts["empty"] < rows) & enough).any(axis=1, keepdims=True)
    flagged = live & enough & (counts["flagged"] > flagged_share * rows)
    constant = enough & (counts["measured"] >= min_rows) & (counts["least"] == counts["largest"])
    void = live & enough & (counts["empty"] >= rows) & ~flagged
    lively = enough & ~flagged & (counts["empty"] <= rows / 2)
    empty = _short_runs(void, lively | flagged)
    stuck = live & constant & _varying(counts, enough) & (counts["empty"] == 0) & ~flagged
    # A dark band ends at the same least value in most columns: that is no detector's fault.
    stuck &= counts["least"] != np.median(counts["least"], axis=1, keepdims=True)
    return {"flagged": flagged, "empty": empty, "stuck": stuck}


def _varying(counts: dict[str, NDArray[Any]], enough: Bools) -> Bools:
    """Return the bands (band, 1) most of whose columns vary by more than a dark band's may."""
    spread = (counts["largest"] - counts["least"])[:, enough[0]]
    if not spread.shape[1]:
        return np.zeros((len(spread), 1), bool)
    return np.asarray(np.median(spread, axis=1, keepdims=True) >= _LEAST_SPREAD)


def _short_runs(void: Bools, lively: Bools) -> Bools:
    """Return the runs of at most two `void` columns (band, x) between lively ones, or the edge."""
    found = np.zeros_like(void)
    beside = np.pad(lively, ((0, 0), (1, _LONGEST_RUN)), constant_values=True)
    inner = np.pad(void, ((0, 0), (0, _LONGEST_RUN)))
    width = void.shape[1]
    for run in range(1, _LONGEST_RUN + 1):
        starts = beside[:, :width] & beside[:, run + 1 : run + 1 + width]
        for step in range(run):
            starts = starts & inner[:, step : step + width]
        for step in range(run):
            found[:, step:] |= starts[:, : width - step]
    return found
