"""A scene to what its page shows, by the recipe's own run."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.inspect import facts
from pipeline.qa.quality import (
    WATER_VAPOUR,
    BandTable,
    Bools,
    Detectors,
    Fates,
    Floats,
    Masks,
    Pixels,
    Preview,
    Quality,
    Smile,
)
from pipeline.qa.representatives import representatives
from pipeline.qa.strips import ColumnSums, Plan, Strip, column_sums, plan, strips
from pipeline.recipe import Recipe, cut, prepare, tile_parameters
from pipeline.sensors import band_list
from pipeline.split import SplitConfig, assign
from pipeline.steps.geometry import is_map
from pipeline.steps.scores import NOMINAL, RULES
from pipeline.windows import windows

SHOWN = ("blue", "green", "red", "nir", "swir1", "swir2")
"""Bands of the pictures and histograms, by their names in `pipeline.steps.scores.NOMINAL`."""
_NEAR = 50.0
"""Largest distance of a shown band from its nominal wavelength [nm]."""
_QUANTITIES = {
    "reflectance": "reflectance [1]",
    "radiance": "radiance [W m-2 sr-1 um-1]",
    "dn": "digital number [counts]",
}


def gather(scene: xr.Dataset, recipe: Recipe, split: SplitConfig) -> Quality:
    """Run the recipe on a scene as the build does, and return what a page shows of it.

    The pixels are read a chunk of rows at a time, once after what the recipe's own steps read;
    memory grows with the scene's width, not with its length.

    Args:
        scene: As `pipeline.readers.open_scene` returns it.
        recipe: The steps, and how tiles are cut and judged.
        split: Gives each tile its split.

    Raises:
        SchemaError: The scene does not fit a step of the recipe.
    """
    prepared = prepare(recipe, scene)
    tiles = cut(recipe, prepared, split)
    variable = next(name for name in _QUANTITIES if name in prepared)
    trusted = _trusted(prepared)
    shown = _shown(prepared, trusted)
    wanted = plan(prepared, variable, list(shown.values()))
    sums = column_sums(prepared)
    found = list(strips(prepared, tiles, wanted, sums))
    valid = np.concatenate([strip.valid for strip in found])
    dead = np.sum([strip.dead for strip in found], axis=0) / valid.shape[0]
    return Quality(
        facts=facts(scene, valid, _on_delivered(scene, prepared, dead)),
        recipe=recipe.name,
        steps=tuple(tiles.attrs["steps"]),
        parameters={name: tuple(given or ()) for step in recipe.steps
                    for name, given in step.items()},
        quantity=_QUANTITIES[variable],
        preview=_preview(prepared, shown, wanted, found),
        masks=_masks(prepared, recipe, wanted, found),
        bands=_bands(prepared, found, sums),
        pixels=_pixels(found, trusted & ~_in_water_vapour(prepared)),
        fates=_fates(prepared, tiles, recipe, split=split, found=found),
        shaded=_shaded(scene),
        detectors=None if is_map(scene) else _detectors(prepared, dead),
        smile=_smile(scene),
    )  # fmt: skip


def _trusted(scene: xr.Dataset) -> Bools:
    """Return which bands (band) are calibrated and have a positive gain."""
    calibrated = band_list(scene.attrs["sensor"], "calibrated").bands
    trusted: Bools = (scene.band.isin(calibrated) & (scene.gain > 0)).values
    return trusted


def _in_water_vapour(scene: xr.Dataset) -> Bools:
    nm = scene.wavelength.values
    return np.any([(nm >= low) & (nm <= high) for low, high in WATER_VAPOUR], axis=0)


def _shown(prepared: xr.Dataset, trusted: Bools) -> dict[str, int]:
    """Return the place of each shown band that has one near enough."""
    found = {}
    for name in SHOWN:
        away = np.where(trusted, np.abs(prepared.wavelength.values - NOMINAL[name]), np.inf)
        if away.min(initial=np.inf) <= _NEAR:
            found[name] = int(away.argmin())
    return found


def _on_delivered(scene: xr.Dataset, prepared: xr.Dataset, dead: Floats) -> NDArray[np.float64]:
    """Return `dead` (band, x) of the kept bands on all bands of the product, 0 of the others."""
    everywhere = np.zeros((scene.sizes["band"], scene.sizes["x"]))
    place = {number: i for i, number in enumerate(scene.band.values.tolist())}
    everywhere[[place[number] for number in prepared.band.values.tolist()]] = dead
    return everywhere


def _preview(
    prepared: xr.Dataset, shown: dict[str, int], wanted: Plan, found: Sequence[Strip]
) -> Preview:
    images = np.concatenate([strip.images for strip in found], axis=1)
    masks = np.concatenate([strip.masks for strip in found], axis=1)
    return Preview(
        wanted.step,
        (prepared.sizes["y"], prepared.sizes["x"]),
        {name: float(prepared.wavelength[place]) for name, place in shown.items()},
        dict(zip(shown, images, strict=True)),
        masks[0],
        dict(zip(wanted.masks[1:], masks[1:], strict=True)),
    )


def _masks(prepared: xr.Dataset, recipe: Recipe, wanted: Plan, found: Sequence[Strip]) -> Masks:
    counts = np.sum([strip.counts for strip in found], axis=0)
    pixels = prepared.sizes["y"] * prepared.sizes["x"]
    unavailable: dict[str, str] = {}
    for step in prepared.attrs["steps"]:
        unavailable |= step.get("unavailable", {})
    none = dict.fromkeys([*RULES, "saturated"], f"the recipe {recipe.name} has no step scores")
    made = dict(zip(wanted.masks, (counts / max(int(counts[0]), 1)).tolist(), strict=True))
    missing = {**none, **unavailable}
    return Masks(
        float(counts[0] / pixels),
        {name: share for name, share in made.items() if name != "valid"},
        {name: why for name, why in missing.items() if name not in made},
    )


def _bands(prepared: xr.Dataset, found: Sequence[Strip], sums: ColumnSums) -> BandTable:
    measured = [pair for strip in found for pair in strip.noise]
    number = prepared.sizes["band"]
    signal, deviation = (
        np.array([pair[i] for pair in measured]).reshape(-1, number) for i in range(2)
    )
    ratio = np.divide(signal, deviation, out=np.full_like(signal, np.nan), where=deviation > 0)
    bad = prepared.bad_detector.values if "bad_detector" in prepared else None
    before, after = np.full(number, np.nan), np.full(number, np.nan)
    for index, detectors in ((before, sums.before), (after, sums.after)):
        for detector in detectors.values():
            none = np.zeros((len(detector.place), prepared.sizes["x"]), bool)
            ignored = none if bad is None else bad[detector.place]
            index[detector.place] = detector.stripe_index(ignored)
    return BandTable(
        prepared.band.values.astype("int64"), prepared.wavelength.values,
        prepared.detector.values.astype("U"), _median(signal), _median(deviation), _median(ratio),
        len(measured), before, after,
    )  # fmt: skip


def _median(values: Floats) -> Floats:
    """Return the medians (band) of the finite `values` (window, band), NaN where there is none."""
    some = np.isfinite(values).any(axis=0)
    out = np.full(values.shape[1], np.nan)
    out[some] = np.nanmedian(values[:, some], axis=0)
    return out


def _pixels(found: Sequence[Strip], trusted: Bools) -> Pixels:
    row, col = (np.concatenate([getattr(s, name) for s in found]) for name in ("row", "col"))
    spectra = np.concatenate([strip.spectra for strip in found])
    chosen, share = representatives(spectra, trusted)
    return Pixels(row[chosen], col[chosen], share, spectra[chosen], len(spectra))


def _fates(
    prepared: xr.Dataset, tiles: xr.Dataset, recipe: Recipe, *, split: SplitConfig,
    found: Sequence[Strip],
) -> Fates:  # fmt: skip
    given = tile_parameters(recipe)
    shape = prepared.sizes["y"], prepared.sizes["x"]
    grid = windows(
        prepared.attrs, shape, partial(assign, split), stride=given["stride"], edges=given["edges"]
    )
    here = grid.reason == ""
    parts = [strip.tiles for strip in found if strip.tiles.sizes["tile"]]
    reason = grid.reason.astype("U32")
    columns: dict[str, Any] = {}
    if parts:
        reason[here] = np.concatenate([part.reason.values for part in parts])
        place = ("tile", "row", "col", "lon", "lat", "split")
        names = [str(n) for n, c in tiles.coords.items() if c.dims == ("tile",) and n not in place]
        for name in names:
            columns[name] = np.full(reason.size, np.nan)
            columns[name][here] = np.concatenate([part[name].values for part in parts])
    counted = Counter(reason.tolist())
    counts = {"in": int(reason.size), "kept": counted.pop("", 0), "rejected": dict(counted)}
    return Fates(grid.row, grid.col, reason, columns, counts)


def _shaded(scene: xr.Dataset) -> dict[str, tuple[tuple[float, float], ...]]:
    """Return ranges [nm] where the product has bands, but none to be trusted."""
    trusted, no_gain = _trusted(scene), ~(scene.gain.values > 0)
    nm, width = scene.wavelength.values, scene.fwhm.values
    # Where the detectors overlap, the other one's bands may be good.
    away = np.abs(nm[:, None] - nm[trusted]).min(axis=1, initial=np.inf)
    lost = ~trusted & ~(away < width)
    found = {
        "not calibrated": _ranges(scene, lost & ~no_gain & ~_in_water_vapour(scene)),
        "gain <= 0": _ranges(scene, lost & no_gain),
        "water vapour": WATER_VAPOUR,
    }
    return {reason: ranges for reason, ranges in found.items() if ranges}


def _ranges(scene: xr.Dataset, chosen: Bools) -> tuple[tuple[float, float], ...]:
    """Return the ranges [nm] that runs of chosen bands of one detector cover."""
    nm, half = scene.wavelength.values, scene.fwhm.values / 2
    runs: list[list[int]] = []
    for place in np.flatnonzero(chosen).tolist():
        same = runs and runs[-1][-1] == place - 1
        if same and scene.detector.values[place] == scene.detector.values[place - 1]:
            runs[-1].append(place)
        else:
            runs.append([place])
    return tuple(
        (float((nm[run] - half[run]).min()), float((nm[run] + half[run]).max())) for run in runs
    )


def _detectors(prepared: xr.Dataset, dead: Floats) -> Detectors:
    none = np.zeros(dead.shape, bool)
    return Detectors(dead, prepared.bad_detector.values if "bad_detector" in prepared else none)


def _smile(scene: xr.Dataset) -> Smile | None:
    if is_map(scene) or "wavelength_column" not in scene:
        return None
    some = np.flatnonzero(_trusted(scene))
    nominal = scene.wavelength.values[some]
    return Smile(
        nominal,
        scene.detector.values[some].astype("U"),
        scene.wavelength_column.values[some].astype("float64") - nominal[:, None],
    )
