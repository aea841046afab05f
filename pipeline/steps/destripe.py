"""Even out the gains of the columns in sensor geometry."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.quality.columns import ColumnGains, ColumnStatistics, column_gains
from pipeline.quality.detectors import DetectorColumns, detector_columns
from pipeline.quality.stripes import Floats, index_of
from pipeline.sensors import SENSORS
from pipeline.steps.geometry import (
    MAP_GEOMETRY,
    broken,
    check_first,
    delivered,
    detectors_of,
    is_map,
    recorded,
    row_spans,
)


def destripe(scene: xr.Dataset, *, threshold: float = 3.0, largest: float = 0.3) -> xr.Dataset:
    """Divide each striped column of `dn` by its gain relative to its neighbours.

    Reads the scene once when it is called, a chunk of rows at a time; the pixels stay lazy. VNIR
    and SWIR are dealt with apart. A column's first moment is matched to those of its neighbours,
    after what the ground contributes is estimated from the spectrum and from along track (see
    `pipeline.quality.columns`): so the extent of "local" follows from the ground's own variation,
    band by band, where others have a window.

    A column is corrected where its gain is off by more than `threshold` times the noise of that
    gain and by more than its uncertainty, which the ground adds to, and by `largest` at most:
    beyond, a detector is broken. `dn` keeps its dtype and is
    rounded, so corrections under half a count change nothing. Samples of other columns, nodata,
    fill, flagged samples, in a product without flags saturated ones (from the sensor's `ceiling`
    on), and those of `bad_detector` stay bit for bit. The integers before are kept as
    `dn_delivered`, which tell where the detector was saturated.

    The step's record has per detector: `bands` judged; `striped`, those whose index is over
    `threshold` times its noise and over half a count; their `stripe_index` (the median over the
    striped bands, see `pipeline.quality.stripes`) and `mean_stripe_index`, each [before, after]
    (after: before rounding); `columns` corrected, `too_large` and left, `at_range`: corrected ones
    with samples clipped to the dtype's range; `boundaries` of the ground along a whole column.

    Map products pass unchanged.

    Args:
        scene: `dn` (band, y, x), `bad_detector` (band, x) if there is one.
        threshold: Least deviation that is corrected, in standard deviations of its noise [1].
        largest: Largest relative deviation that is corrected [1].

    Raises:
        SchemaError: `radiance` or `mask` came first.
        ValueError: `threshold` or `largest` is out of range.

    Source: local moment matching after Datt et al. 2003, doi:10.1109/TGRS.2003.813206.
    """
    if not threshold > 0 or not 0 < largest < 1:
        raise ValueError(f"threshold must be > 0, largest in (0, 1), got {threshold}, {largest}")
    step: dict[str, Any] = {"step": "destripe", "threshold": threshold, "largest": largest}
    check_first(scene, "destripe")
    if is_map(scene):
        return recorded(scene, {**step, "applied": False, "why": MAP_GEOMETRY})
    gain = np.ones((scene.sizes["band"], scene.sizes["x"]))
    effects = {}
    bad = _bad(scene)
    for name, part in _gather(scene, bad).items():
        found, effects[name] = _gains(part, bad[part.place], threshold, largest)
        gain[part.place] = found
    corrected = _corrected(scene, gain, bad)
    applied = bool((gain != 1).any())
    new = scene.assign(dn=corrected, dn_delivered=delivered(scene)) if applied else scene
    return recorded(new, {**step, "applied": applied, "effect": effects})


def destripe_array(
    values: NDArray[Any], valid: NDArray[np.bool_], *, threshold: float = 3.0, largest: float = 0.3
) -> tuple[NDArray[Any], Floats]:
    """Return `values` (band, y, x) without stripes, unrounded if float, and the gains (band, x).

    As `destripe` does for one detector in memory. A column of a band that is not finite in
    some valid pixel is neither used nor changed.

    Args:
        values: Numbers in proportion to light (band, y, x).
        valid: Pixels that count (y, x); the others are left alone.
        threshold: See `destripe`.
        largest: See `destripe`.
    """
    bands, _, width = values.shape
    statistics = ColumnStatistics(bands, width)
    statistics.add(values, valid)
    none = np.zeros((bands, width), bool)
    gain = _significant(column_gains(statistics, none), threshold, largest)
    return apply_gains(values, gain, untouched=~valid[None] | ~np.isfinite(values)), gain


def apply_gains(
    values: NDArray[Any], gain: Floats, *, untouched: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return `values` (band, y, x) over `gain` (band, x), rounded and clipped to integer dtypes."""
    wide = np.float64 if values.dtype.itemsize > 2 else np.float32
    changed = values * (1 / gain).astype(wide)[:, None, :]
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        changed = np.clip(np.rint(changed), limits.min, limits.max)
    untouched = untouched | (gain == 1)[:, None, :]
    return np.where(untouched, values, changed.astype(values.dtype))


def _bad(scene: xr.Dataset) -> NDArray[np.bool_]:
    if "bad_detector" in scene:
        return np.asarray(scene.bad_detector.values, bool)
    return np.zeros((scene.sizes["band"], scene.sizes["x"]), bool)


def _gather(scene: xr.Dataset, bad: NDArray[np.bool_]) -> dict[str, DetectorColumns]:
    """Read the scene once and return each detector's sums."""
    parts = {
        name: detector_columns(place, scene.sizes["x"])
        for name, place in detectors_of(scene).items()
    }
    for _, rows in row_spans(scene):
        spoilt = broken(rows, scene.attrs) & ~bad[:, None, :]
        for part in parts.values():
            part.add(rows.dn.values, spoilt, scene.attrs["nodata"])
    return parts


def _significant(found: ColumnGains, threshold: float, largest: float) -> Floats:
    """Return the gains that are to be corrected, and 1 in place of the others."""
    deviation = np.abs(np.log(found.gain))
    least = np.maximum(threshold * found.noise, found.uncertainty)[:, None]
    wanted = (deviation > least) & (np.abs(found.gain - 1) <= largest)
    return np.where(wanted, found.gain, 1.0)


def _gains(
    part: DetectorColumns, bad: NDArray[np.bool_], threshold: float, largest: float
) -> tuple[Floats, dict[str, Any]]:
    """Return the gains to correct (band, x) and what that does."""
    statistics = part.statistics
    found = column_gains(statistics, part.ignored(bad))
    gain = _significant(found, threshold, largest)
    columns = part.means(bad)
    before = index_of(columns, statistics.curvatures)
    after = index_of(columns / gain, statistics.curvatures)
    judged = np.isfinite(found.noise) & np.isfinite(before)
    with np.errstate(invalid="ignore"):
        level = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0
                          for row in columns])  # fmt: skip
        striped = judged & (before > threshold * found.noise) & (before * level > 0.5)
    too_large = np.abs(found.gain - 1) > largest
    return gain, {
        "bands": int(judged.sum()), "striped": int(striped.sum()),
        "stripe_index": _pair(np.median, before[striped], after[striped]),
        "mean_stripe_index": _pair(np.mean, before[striped], after[striped]),
        "columns": int((gain != 1).sum()), "too_large": int(too_large.sum()),
        "at_range": int(((gain != 1) & (part.highest > gain)).sum()),
        "boundaries": int(found.boundaries.sum()),
    }  # fmt: skip


def _pair(summary: Any, before: Floats, after: Floats) -> list[float] | None:
    return [float(summary(before)), float(summary(after))] if len(before) else None


def _corrected(scene: xr.Dataset, gain: Floats, bad: NDArray[np.bool_]) -> xr.DataArray:
    """Return `dn` with the gains taken out, lazily."""
    dn = scene.dn.data
    chunks = (dn.chunks[0], dn.chunks[2])
    arguments = [dn, "byx", da.from_array(np.where(bad, 1.0, gain), chunks=chunks), "bx"]
    for name in ("flags", "dn_delivered"):
        arguments += [scene[name].data.rechunk(dn.chunks), "byx"] if name in scene else [None, None]
    data = da.blockwise(
        _correct, "byx", *arguments, dtype=dn.dtype, nodata=scene.attrs["nodata"],
        fill=scene.attrs.get("fill"), ceiling=SENSORS[scene.attrs["sensor"]].ceiling,
        meta=np.empty((0, 0, 0), dn.dtype),
    )  # fmt: skip
    corrected: xr.DataArray = scene.dn.copy(data=data)
    return corrected


def _correct(
    dn: NDArray[Any], gain: Floats, flags: NDArray[np.uint8] | None,
    before: NDArray[Any] | None, *, nodata: int, fill: int | None, ceiling: int | None,
) -> NDArray[Any]:  # fmt: skip
    """Return `dn` with the gains taken out; `before`: as delivered, if that is not `dn` itself."""
    untouched = dn == nodata
    if fill is not None:
        untouched |= dn == fill
    if flags is not None:
        untouched |= flags != 0
    elif ceiling is not None:
        untouched |= (dn if before is None else before) >= ceiling
    return apply_gains(dn, gain, untouched=untouched)
