"""What the tiles of each sensor have in common: bands, dtype, scale."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import zarr

from storage.nodes import array, read_column, subgroup
from storage.schema import SchemaError

_PER_BAND = ("band", "wavelength", "fwhm")
_AT_ONCE = 16
"""Scenes that are asked for at a time: in a bucket each answer takes its while."""


@dataclass(frozen=True)
class Spectra:
    """Sensors and sets of wavelengths of some scenes."""

    sensors: dict[str, dict[str, Any]]
    """By name, the manifest's entry, without what is counted over tiles."""
    spectral: list[dict[str, Any]]
    """Sets of wavelengths, in the order in which the scenes first have them."""
    numbers: dict[str, int]
    """By scene, its entry of `spectral`."""


def read_spectra(group: zarr.Group, scenes: Sequence[tuple[str, str]]) -> Spectra:
    """Read the bands of scenes; no pixels.

    Args:
        group: An opened version.
        scenes: Scene id and sensor, in the version's own order: one that only has more scenes at
            its end then has the same numbers for these.

    Raises:
        SchemaError: A scene has other bands, dtype, scale or units than its sensor's first.
    """
    found = Spectra({}, [], {})
    known: dict[str, int] = {}
    with ThreadPoolExecutor(_AT_ONCE, "spectra") as pool:
        entries = pool.map(lambda scene: _read(group, scene[0]), scenes)
        for (scene_id, sensor), (bands, common, nodata) in zip(scenes, entries, strict=True):
            first = found.sensors.setdefault(sensor, {**bands, **common, "nodata": nodata})
            _check(scene_id, sensor, {**common, "bands": len(bands["band"])}, first)
            entry = {"sensor": sensor, **bands}
            number = known.setdefault(json.dumps(entry), len(known))
            if number == len(found.spectral):
                found.spectral.append(entry)
            found.numbers[scene_id] = number
    return found


def _read(group: zarr.Group, scene_id: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    scene = subgroup(group, f"scenes/{scene_id}")
    bands = {name: read_column(scene, name).tolist() for name in _PER_BAND}
    attrs: dict[str, Any] = dict(scene.attrs)
    common = {"dtype": array(scene, "tiles").dtype.name}
    common |= {name: attrs[name] for name in ("scale", "units")}
    return bands, common, attrs["nodata"]


def _check(scene_id: str, sensor: str, got: dict[str, Any], first: dict[str, Any]) -> None:
    expected = {name: first[name] for name in ("dtype", "scale", "units")}
    expected["bands"] = len(first["band"])
    if got != expected:
        raise SchemaError(
            f"{scene_id} must be like the other {sensor} scenes of this version, {expected}, "
            f"got {got}; build them from one recipe into one store"
        )
