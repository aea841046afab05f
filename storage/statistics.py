"""Mean, standard deviation and quantiles a band: of tiles at hand, and of a whole version.

Each scene's group has `sketch` (split, band, 3 + bin) of a lattice of its pixels: their count, sum
and sum of squares in integers, then their counts in bins (`storage.sketches`); an older scene has
the first three as `moments`. `/statistics/<sensor>` has the sums over a version's scenes, whatever
its history.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr

from storage.nodes import COLUMN_CODEC, array, plain, read_column, subgroup, write_column
from storage.schema import SPLITS, SchemaError
from storage.sketches import (
    RELATIVE_ACCURACY,
    STEP,
    SceneSketch,
    bin_values,
    parts,
    quantiles,
    trim,
)

SKETCH = ("sketch", "moments")
"""Arrays; the latter in older groups alone."""
PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_SAME = ("dtype", "units", "scale", "band")
"""What the scenes of one entry of `/statistics` share."""
_NM = 1e6
"""Wavelengths are averaged in units of 1e-6 nm, as integers."""


@dataclass(frozen=True)
class BandStatistics:
    """Of one sensor in one version, in physical units: stored / scale."""

    split: str
    scenes: int
    units: str
    band: np.ndarray
    """The product's numbers (band)."""
    wavelength: np.ndarray
    """Mean over the scenes (band) [nm]."""
    count: np.ndarray
    """Pixels looked at and measured (band): one of 32 that are stored."""
    mean: np.ndarray
    """(band), NaN where there is no pixel, and so on."""
    std: np.ndarray
    probabilities: tuple[float, ...]
    quantiles: np.ndarray
    """(probability, band), within `RELATIVE_ACCURACY` of the pixels' own."""


@dataclass(frozen=True)
class Sums:
    """Counts of scenes of one kind: added, and taken away again, exactly."""

    kind: dict[str, Any]
    """`_SAME`, by which scenes can be added up."""
    scenes: int
    wavelength: np.ndarray
    """Sum over scenes (band) [1e-6 nm], int64."""
    first: int
    """Number of the first bin."""
    counts: np.ndarray
    """(split, band, bin), int64."""
    moments: np.ndarray
    """(split, band, 3), int64."""


def write_sketch(scene: zarr.Group, sketch: SceneSketch) -> None:
    """Write the array `sketch` of a scene."""
    counts, first = sketch.trimmed()
    _write(scene, counts.astype(np.int64), sketch.moments, first)


def add_statistics(
    root: zarr.Group, added: Iterable[zarr.Group], removed: Iterable[zarr.Group] = ()
) -> None:
    """Bring `/statistics` from what a version's scenes were to what they are now.

    Reads the scenes that came and went, no other. The same scenes give the same bytes, in
    whatever order they came. A scene of before there were sketches counts for nothing.

    Args:
        root: Of a writable session.
        added: Groups of scenes that came.
        removed: Groups of scenes that went, as they were; a replaced scene is in both.

    Raises:
        SchemaError: More is taken away than was ever added.
    """
    node = root.require_group("statistics")
    sums = {name: _load(subgroup(node, name)) for name in sorted(node.group_keys())}
    before = dict(sums)
    for scenes, sign in ((added, 1), (removed, -1)):
        for scene in scenes:
            if SKETCH[0] in scene:
                new = _scene_sums(scene)
                name = _entry(sums, str(scene.attrs["sensor"]), new.kind)
                sums[name] = _plus(sums[name], new, sign) if name in sums else new
    for name, total in sums.items():
        if total.scenes < 0 or min(total.counts.min(initial=0), total.moments[..., 0].min()) < 0:
            raise SchemaError(
                f"/statistics/{name}: scenes were to be removed that were never added; name as "
                f"removed just the scenes that the version before had"
            )
        if total is not before.get(name):
            _save(node, name, total)


def read_statistics(
    group: zarr.Group,
    *,
    split: Literal["train", "val", "test", "all"] = "train",
    probabilities: Sequence[float] = PROBABILITIES,
) -> dict[str, BandStatistics]:
    """Return the statistics of each sensor of an opened version; none for an older store.

    A sensor whose scenes differ in bands, dtype or scale has one entry more for each further kind.
    """
    found = {}
    for name, total in load_sums(group).items():
        chosen = slice(None) if split == "all" else [SPLITS.index(split)]
        counts = total.counts[chosen].sum(axis=0)
        count, *sums = total.moments[chosen].sum(axis=0).T
        unit, scale = parts(np.dtype(total.kind["dtype"]), total.kind["units"]), total.kind["scale"]
        integers = np.dtype(total.kind["dtype"]).kind == "i"
        mean, std = _mean_std(count, sums[0], sums[1], unit)
        values = bin_values(total.first, counts.shape[1], integers=integers)
        found[name] = BandStatistics(
            split=split,
            scenes=total.scenes,
            units=total.kind["units"],
            band=np.array(total.kind["band"]),
            wavelength=total.wavelength / total.scenes / _NM,
            count=count,
            mean=mean / scale,
            std=std / scale,
            probabilities=tuple(probabilities),
            quantiles=quantiles(counts, values, np.array(probabilities)) / scale,
        )
    return found


def load_sums(group: zarr.Group) -> dict[str, Sums]:
    """Return what `/statistics` of an opened version has, by its groups' names."""
    if "statistics" not in group:
        return {}
    node = subgroup(group, "statistics")
    return {name: _load(subgroup(node, name)) for name in sorted(node.group_keys())}


def _mean_std(
    count: np.ndarray, total: np.ndarray, squares: np.ndarray, unit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (band); the difference is taken between integers."""
    mean, std = (np.full(len(count), np.nan) for _ in range(2))
    for band in np.flatnonzero(count):
        n, s, q = int(count[band]), int(total[band]), int(squares[band])
        mean[band] = s / n / unit
        std[band] = math.sqrt(max(n * q * unit - s * s, 0)) / n / unit
    return mean, std


def _scene_sums(scene: zarr.Group) -> Sums:
    wavelength = np.rint(read_column(scene, "wavelength") * _NM).astype(np.int64)
    kind = {
        "dtype": array(scene, "tiles").dtype.name,
        "units": scene.attrs["units"],
        "scale": scene.attrs["scale"],
        "band": read_column(scene, "band").tolist(),
    }
    return Sums(kind, 1, wavelength, *_read(scene))


def _entry(sums: dict[str, Sums], sensor: str, kind: dict[str, Any]) -> str:
    """Return the name of the entry for scenes of a kind: the sensor's, or one more."""
    if sensor not in sums or sums[sensor].kind == kind:
        return sensor
    digest = hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()
    return f"{sensor}-{digest[:8]}"


def _plus(a: Sums, b: Sums, sign: int) -> Sums:
    first = min(a.first, b.first)
    last = max(s.first + s.counts.shape[2] for s in (a, b))
    counts = np.zeros((*a.counts.shape[:2], last - first), np.int64)
    for sums, times in ((a, 1), (b, sign)):
        start = sums.first - first
        counts[..., start : start + sums.counts.shape[2]] += times * sums.counts
    counts, first = trim(counts, first)
    wavelength = a.wavelength + sign * b.wavelength
    moments = a.moments + sign * b.moments
    return Sums(a.kind, a.scenes + sign * b.scenes, wavelength, first, counts, moments)


def _load(node: zarr.Group) -> Sums:
    attrs = dict(node.attrs)
    scenes: Any = attrs["scenes"]
    kind = {name: attrs[name] for name in ("dtype", "units", "scale")}
    kind["band"] = read_column(node, "band").tolist()
    # A mean of integers in float64: its product with their number rounds to their sum again.
    wavelength = np.rint(read_column(node, "wavelength") * _NM * scenes).astype(np.int64)
    return Sums(kind, int(scenes), wavelength, *_read(node))


def _save(node: zarr.Group, name: str, total: Sums) -> None:
    if name in node:
        del node[name]
    if not total.scenes:
        return
    attrs = {k: total.kind[k] for k in ("dtype", "units", "scale")}
    attrs |= {
        "scenes": total.scenes,
        "lattice": f"every {STEP}th row of a tile",
        "bins": f"1 / {round(0.5 / RELATIVE_ACCURACY)} of the numbers between two powers of two",
        "relative_accuracy": RELATIVE_ACCURACY,
        "sketch": "count, sum and sum of squares of stored values, in units of 1 / sums_per_unit, "
        "then counts in bins",
        "sums_per_unit": parts(np.dtype(total.kind["dtype"]), total.kind["units"]),
        "splits": list(SPLITS),
    }
    group = node.create_group(name, attributes=plain(attrs))
    write_column(group, "band", np.array(total.kind["band"], "i4"), "band")
    write_column(group, "wavelength", total.wavelength / _NM / total.scenes, "band")
    _write(group, total.counts, total.moments, total.first)


def _write(group: zarr.Group, counts: np.ndarray, moments: np.ndarray, first: int) -> None:
    values = np.concatenate([moments, counts], axis=2)
    group.create_array(
        SKETCH[0],
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        compressors=COLUMN_CODEC,
        # A dimension `split` would clash with the tiles' coordinate.
        dimension_names=("part", "band", "number"),
        attributes={"first_bin": first, "moments": moments.shape[2]},
    )[:] = values


def _read(group: zarr.Group) -> tuple[int, np.ndarray, np.ndarray]:
    sketch = array(group, SKETCH[0])
    first: Any = sketch.attrs["first_bin"]
    values = np.asarray(sketch[:]).astype(np.int64)
    if SKETCH[1] in group:
        return int(first), values, np.asarray(array(group, SKETCH[1])[:])
    number: Any = sketch.attrs["moments"]
    return int(first), values[..., number:], values[..., :number]
