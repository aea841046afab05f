"""What the tiles of each sensor have in common: bands, dtype, scale, statistics."""

from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from storage.nodes import read_column, subgroup
from storage.schema import SchemaError
from storage.statistics import Moments, merge, no_moments, tile_moments

_PER_BAND = ("band", "wavelength", "fwhm")


class SensorTable:
    """Sensors and sets of wavelengths, gathered while a version's tiles go by.

    Statistics are those of the train split, or of all tiles of a sensor that has none in train.

    Args:
        index: All tiles to come, with `sensor` and `split`.
    """

    def __init__(self, index: pa.Table) -> None:
        self.spectral: list[dict[str, Any]] = []
        self.rows: list[int] = []
        """For each tile so far, its entry of `spectral`."""
        pairs = zip(index["sensor"].to_pylist(), index["split"].to_pylist(), strict=True)
        self._trained = {sensor for sensor, split in set(pairs) if split == "train"}
        self._sensors: dict[str, dict[str, Any]] = {}
        self._moments: dict[str, Moments] = {}
        self._scenes: dict[str, int] = {}

    def add(
        self, group: zarr.Group, record: dict[str, Any], tile: np.ndarray, valid: np.ndarray
    ) -> int:
        """Take one tile (band, y, x) and return its entry of `spectral`.

        Raises:
            SchemaError: Its scene has other bands, dtype, scale or units than its sensor's first.
        """
        scene_id, sensor = record["scene_id"], record["sensor"]
        if scene_id not in self._scenes:
            self._scenes[scene_id] = self._add_scene(group, scene_id, sensor, tile.dtype)
        self.rows.append(self._scenes[scene_id])
        self._sensors[sensor]["tiles"] += 1
        if record["split"] == "train" or sensor not in self._trained:
            self._moments[sensor] = merge(self._moments[sensor], tile_moments(tile, valid))
        return self._scenes[scene_id]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's `sensors`: statistics in physical units, stored / scale."""
        result = {}
        for sensor, entry in sorted(self._sensors.items()):
            moments, scale = self._moments[sensor], entry["scale"]
            statistics = {
                "split": "train" if sensor in self._trained else "all",
                "mean": (moments.mean / scale).tolist(),
                "std": (moments.std / scale).tolist(),
                "count": moments.count.tolist(),
            }
            result[sensor] = {**entry, "statistics": statistics}
        return result

    def _add_scene(
        self, group: zarr.Group, scene_id: str, sensor: str, dtype: np.dtype[Any]
    ) -> int:
        scene = subgroup(group, f"scenes/{scene_id}")
        bands = {name: read_column(scene, name).tolist() for name in _PER_BAND}
        common = {"dtype": dtype.name, **{name: scene.attrs[name] for name in ("scale", "units")}}
        if sensor not in self._sensors:
            first = {**bands, **common, "nodata": scene.attrs["nodata"], "tiles": 0}
            self._sensors[sensor] = first
            self._moments[sensor] = no_moments(len(bands["band"]))
        first = self._sensors[sensor]
        got = {**common, "bands": len(bands["band"])}
        expected = {**{name: first[name] for name in common}, "bands": len(first["band"])}
        if got != expected:
            raise SchemaError(
                f"{scene_id} must be like the other {sensor} scenes of this version, {expected}, "
                f"got {got}; build them from one recipe into one store"
            )
        entry = {"sensor": sensor, **bands}
        if entry not in self.spectral:
            self.spectral.append(entry)
        return self.spectral.index(entry)
