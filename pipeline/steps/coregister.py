"""Bring SWIR onto VNIR by whole pixels, where they are found to be apart."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.quality.shifts import Shift, agreed_shift, correlation, phase_shift
from pipeline.steps.geometry import MAP_GEOMETRY, check_first, is_map, recorded

_FEWEST_ROWS = 64
_HALVES = ("left", "right")


def coregister(
    scene: xr.Dataset, *, max_apart: float = 15.0, min_peak: float = 8.0, block_rows: int = 256
) -> xr.Dataset:
    """Estimate how far SWIR lies from VNIR, and shift SWIR back where that is significant.

    Reads the bands that overlap, `block_rows` rows at a time, when it is called; the pixels stay
    lazy. Each pair of a VNIR and a SWIR band no more than `max_apart` apart is compared by phase
    correlation in the left and the right half (the shift along track differs between them) of
    each block of rows. A half's shift is the median of those whose peak is significant; it is
    significant if they are most of all and most of them agree within half a pixel.

    Applied is what is significant and at least half a pixel, by whole pixels: across track the
    mean of the halves, along track each half's own. `dn`, `flags` and `bad_detector` of SWIR
    move; vacated samples are nodata, and `vacated` (band, y, x) bool says which they are.

    The step's record has for each half: `shift` [y, x] of SWIR against VNIR [pixel] and its
    `uncertainty`, `significant`, `agreeing` of `comparisons`, `applied` [y, x] [pixel], and
    `correlation` of the pairs [before, after];
    None where there was nothing to compare. Map products pass unchanged.

    Args:
        scene: `dn` (band, y, x).
        max_apart: Largest distance between the bands of a pair [nm].
        min_peak: Least height of a peak over the background, in its standard deviations.
        block_rows: Rows that are compared at a time.

    Source: phase correlation after Kuglin and Hines 1975, Proc. Int. Conf. Cybernetics 163-165.
    """
    step: dict[str, Any] = {"step": "coregister", "max_apart": max_apart, "min_peak": min_peak,
                            "block_rows": block_rows}  # fmt: skip
    check_first(scene, "coregister")
    if is_map(scene):
        return recorded(scene, {**step, "applied": False, "why": MAP_GEOMETRY})
    pairs = _pairs(scene, max_apart)
    if not pairs or scene.sizes["y"] < _FEWEST_ROWS or scene.sizes["x"] < 2 * _FEWEST_ROWS:
        why = f"no VNIR and SWIR bands within {max_apart:g} nm" if not pairs else "too few pixels"
        return recorded(scene, {**step, "applied": False, "why": why})
    numbers = [[int(scene.band[v]), int(scene.band[s])] for v, s in pairs]
    halves = _estimates(scene, pairs, block_rows, min_peak)
    applied = _whole_pixels(halves)
    effect = {}
    for half, shift, moved in zip(_HALVES, halves, applied, strict=True):
        effect[half] = {
            "shift": _or_none([shift.y, shift.x]),
            "uncertainty": _or_none([shift.uncertainty])[0],
            "significant": shift.significant, "agreeing": shift.agreeing,
            "comparisons": shift.comparisons, "applied": list(moved),
            "correlation": _or_none(_correlations(scene, pairs, half, moved, block_rows)),
        }  # fmt: skip
    some = any(any(moved) for moved in applied)
    step |= {"applied": some, "pairs": numbers, "effect": effect}
    return recorded(_shifted(scene, applied) if some else scene, step)


def _pairs(scene: xr.Dataset, max_apart: float) -> list[tuple[int, int]]:
    """Return places on `band` of VNIR and SWIR bands that see nearly the same light."""
    usable = scene.gain.values > 0
    vnir = np.flatnonzero((scene.detector.values == "VNIR") & usable)
    swir = np.flatnonzero((scene.detector.values == "SWIR") & usable)
    nm = scene.wavelength.values
    near = [(int(v), int(s)) for v in vnir for s in swir if abs(nm[v] - nm[s]) <= max_apart]
    places = sorted({place for pair in near for place in pair})
    # Uncalibrated bands are empty; some rows in the middle show it.
    rows = slice(max(scene.sizes["y"] // 2 - 32, 0), scene.sizes["y"] // 2 + 32)
    measured = scene.dn.isel(band=places, y=rows) != scene.attrs["nodata"]
    live = dict(zip(places, measured.any(["y", "x"]).values.tolist(), strict=True))
    near = [(v, s) for v, s in near if live[v] and live[s]]
    # A few are enough, the nearest first.
    return sorted(near, key=lambda pair: abs(nm[pair[0]] - nm[pair[1]]))[:8]


def _blocks(
    scene: xr.Dataset, pairs: list[tuple[int, int]], half: str, rows: int
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return each pair's images (y, x) in each block of rows of a half, float32, NaN: no data."""
    middle = scene.sizes["x"] // 2
    columns = slice(0, middle) if half == "left" else slice(middle, None)
    places = sorted({place for pair in pairs for place in pair})
    part = scene.isel(band=places, x=columns)
    out = []
    last = max(scene.sizes["y"] - _FEWEST_ROWS, 1)
    for start in range(0, last, rows):
        images = _images(part.isel(y=slice(start, start + rows)), scene.attrs)
        out += [(images[places.index(v)], images[places.index(s)]) for v, s in pairs]
    return [(v, s) for v, s in out if np.isfinite(v).any() and np.isfinite(s).any()]


def _images(part: xr.Dataset, attrs: dict[Any, Any]) -> NDArray[np.float32]:
    dn = part.dn.values
    void = dn == attrs["nodata"]
    if "fill" in attrs:
        void |= dn == attrs["fill"]
    if "bad_detector" in part:
        void |= part.bad_detector.values[:, None, :]
    return np.where(void, np.float32(np.nan), dn.astype("float32"))


def _estimates(
    scene: xr.Dataset, pairs: list[tuple[int, int]], rows: int, min_peak: float
) -> list[Shift]:
    return [
        agreed_shift([phase_shift(v, s) for v, s in _blocks(scene, pairs, half, rows)], min_peak)
        for half in _HALVES
    ]


def _whole_pixels(halves: list[Shift]) -> list[tuple[int, int]]:
    """Return how far each half of SWIR is off, y and x, in whole pixels; 0 if not significant."""
    sure = [shift for shift in halves if shift.significant]
    across = _whole(float(np.mean([shift.x for shift in sure]))) if sure else 0
    return [(_whole(shift.y) if shift.significant else 0, across) for shift in halves]


def _or_none(numbers: list[float]) -> list[float | None]:
    """Return the numbers with None for NaN, which JSON does not have."""
    return [number if np.isfinite(number) else None for number in numbers]


def _whole(shift: float) -> int:
    # Half a pixel counts as one: rounding to even would not apply it.
    return int(np.sign(shift) * np.floor(abs(shift) + 0.5))


def _correlations(
    scene: xr.Dataset, pairs: list[tuple[int, int]], half: str, moved: tuple[int, int], rows: int
) -> list[float]:
    """Return the mean correlation of the pairs before and after SWIR is moved."""
    blocks = _blocks(scene, pairs, half, rows)
    found = [(correlation(v, s, (0, 0)), correlation(v, s, moved)) for v, s in blocks]
    finite = [pair for pair in found if np.isfinite(pair).all()]
    return np.mean(finite, axis=0).tolist() if finite else [float("nan")] * 2


def _shifted(scene: xr.Dataset, applied: list[tuple[int, int]]) -> xr.Dataset:
    """Return the scene with SWIR moved by the halves' shifts, lazily."""
    swir = xr.DataArray(scene.detector.values == "SWIR", dims="band")
    across = applied[0][1]
    empty = {"dn": scene.attrs["nodata"], "dn_delivered": scene.attrs["nodata"], "flags": 0,
             "bad_detector": False, "vacated": True}  # fmt: skip
    new = {}
    for name in (name for name in empty if name in scene):
        moved = scene[name].shift(x=-across, fill_value=empty[name])
        if "y" in moved.dims:
            moved = _along_track(moved, applied, empty[name])
        both = moved.where(swir, scene[name]).transpose(*scene[name].dims)
        new[name] = _like(both, scene[name])
    place = xr.zeros_like(scene.dn.isel(band=0, drop=True), dtype=bool)
    place = _along_track(place.shift(x=-across, fill_value=True), applied, True)
    vacated = (swir & place).transpose("band", "y", "x")
    vacated = _like(vacated.assign_coords(band=scene.band), scene.dn)
    # The reader may have moved SWIR already.
    vacated = new["vacated"] | vacated if "vacated" in new else vacated
    return scene.assign({**new, "vacated": vacated})


def _along_track(
    values: xr.DataArray, applied: list[tuple[int, int]], empty: int | bool
) -> xr.DataArray:
    middle = values.sizes["x"] // 2
    halves = [slice(0, middle), slice(middle, None)]
    parts = [
        values.isel(x=half).shift(y=-down, fill_value=empty)
        for half, (down, _) in zip(halves, applied, strict=True)
    ]
    return xr.concat(parts, "x").transpose(*values.dims)


def _like(values: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return `values` with the chunks, dtype kept, of `other`."""
    return values.chunk(dict(other.chunksizes)) if other.chunks else values
