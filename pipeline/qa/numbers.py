"""The numbers of a scene's page as JSON-able data, for scripts that look at many scenes."""

import math
from typing import Any

import numpy as np

from pipeline.qa.quality import Detectors, Fates, Quality, Smile
from storage.schema import tile_id

VERSION = 1
"""Grows when a name or a meaning changes."""


def numbers(quality: Quality) -> dict[str, Any]:
    """Return all numbers of the page; what is not known is None.

    `summary` has one number for each question; the others are by band, tile or pixel, and units
    are in `units`.
    """
    bands, pixels, masks = quality.bands, quality.pixels, quality.masks
    found = {
        "version": VERSION,
        "scene_id": quality.facts["scene_id"],
        "recipe": quality.recipe,
        "facts": dict(quality.facts),
        "summary": summary(quality),
        "masks": {"valid": masks.valid, **masks.share, "unavailable": dict(masks.unavailable)},
        "bands": {
            "number": bands.number, "wavelength": bands.wavelength, "detector": bands.detector,
            "signal": bands.signal, "noise": bands.noise, "snr": bands.snr,
            "stripe_index_before": bands.stripes_before, "stripe_index_after": bands.stripes_after,
        },
        "snr_windows": bands.windows,
        "detectors": _detectors(quality.detectors, bands.number),
        "smile": _smile(quality.smile),
        "tiles": {"counts": dict(quality.fates.counts), "each": _tiles(quality)},
        "pixels": {
            "row": pixels.row, "col": pixels.col, "share": pixels.share,
            "values": pixels.values, "sampled": pixels.sampled,
        },
        "steps": list(quality.steps),
        "units": {"stored": quality.quantity, "wavelength": "nm", "smile": "nm",
                  "snr": "1", "stripe_index": "1", "shares": "1"},
    }  # fmt: skip
    plain: dict[str, Any] = as_plain(found)
    return plain


def summary(quality: Quality) -> dict[str, Any]:
    """Return one number for each question that a scene is asked; NaN or None if not known."""
    bands, fates = quality.bands, quality.fates
    of = {name: bands.detector == name for name in dict.fromkeys(bands.detector.tolist())}
    return {
        "valid_fraction": quality.masks.valid,
        **{f"{name}_fraction": share for name, share in quality.masks.share.items()},
        **{f"snr_{name.lower()}": middle(bands.snr[place]) for name, place in of.items()},
        **{f"stripe_index_{when}_{name.lower()}": middle(index[place])
           for when, index in (("before", bands.stripes_before), ("after", bands.stripes_after))
           for name, place in of.items()},
        "bad_detectors": int(quality.detectors.bad.sum()) if quality.detectors else None,
        "smile_nm": float(np.abs(quality.smile.deviation).max()) if quality.smile else None,
        "tiles_in": fates.counts["in"],
        "tiles_kept": fates.counts["kept"],
        "problems": len(quality.facts["problems"]),
    }  # fmt: skip


def middle(values: Any) -> float:
    """Return the median of the finite values, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


def as_plain(value: Any) -> Any:
    """Return `value` without NumPy and without NaN or infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): as_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return as_plain(value.tolist())
    if isinstance(value, float):
        # Seven figures: what float32 has.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _detectors(found: Detectors | None, number: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    band, column = np.nonzero(found.bad)
    return {"bad": {"band": number[band], "column": column},
            "dead_fraction": found.dead.mean(axis=1)}  # fmt: skip


def _smile(found: Smile | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "wavelength": found.wavelength,
        "detector": found.detector,
        "least": found.deviation.min(axis=1),
        "largest": found.deviation.max(axis=1),
    }


def _tiles(quality: Quality) -> list[dict[str, Any]]:
    fates: Fates = quality.fates
    scene_id = quality.facts["scene_id"]
    return [
        {"tile_id": tile_id(scene_id, int(row), int(col)), "row": int(row), "col": int(col),
         "reason": str(fates.reason[i]),
         **{name: float(values[i]) for name, values in fates.columns.items()}}
        for i, (row, col) in enumerate(zip(fates.row, fates.col, strict=True))
    ]  # fmt: skip
