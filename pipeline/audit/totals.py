"""Totals that must agree, and shares that should be near what was asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from storage.nodes import subgroup
from storage.schema import SPLITS

SHARE_TOLERANCE = 0.05
"""Of all tiles: by more a split's share may not be off without a word."""
_NAMED = 10
_WATER = "water_fraction"


def reconcile(group: zarr.Group, index: pa.Table, breaches: list[str]) -> dict[str, int]:
    """Return the counts of tiles over all scenes; a breach where scenes and index disagree."""
    names = index["scene_id"].combine_chunks()
    scene = names.indices.to_numpy()
    scene_ids = names.dictionary.to_pylist()
    indexed = np.bincount(scene, minlength=len(scene_ids)).tolist()
    node = subgroup(group, "scenes")
    stored = dict(node.groups())
    wrong = [
        f"{name}: {'stored, not in the index' if name in stored else 'in the index, not stored'}"
        for name in sorted(stored.keys() ^ set(scene_ids))
    ]
    total = {"in": 0, "kept": 0, "rejected": 0}
    for name, tiles in zip(scene_ids, indexed, strict=True):
        if name not in stored:
            continue
        counts: Any = stored[name].attrs["counts"]
        rejected = sum(counts["rejected"].values())
        if counts["kept"] != tiles or counts["in"] != counts["kept"] + rejected:
            wrong.append(
                f"{name}: {tiles} tiles in the index, {counts['kept']} kept, {rejected} rejected, "
                f"of {counts['in']}"
            )
        for key, count in (("in", counts["in"]), ("kept", counts["kept"]), ("rejected", rejected)):
            total[key] += int(count)
    if wrong:
        breaches.append(
            f"in = kept + rejected must hold for each scene, {len(wrong)} are not so: "
            f"{'; '.join(wrong[:_NAMED])}. Build those scenes again"
        )
    _unique_tiles(index, scene, breaches)
    return total


def _unique_tiles(index: pa.Table, scene: NDArray[np.int32], breaches: list[str]) -> None:
    row, col = (index[name].to_numpy() for name in ("row", "col"))
    order = np.lexsort((col, row, scene))
    same = [np.diff(column[order]) == 0 for column in (scene, row, col)]
    twice = order[1:][np.logical_and.reduce(same)]
    if twice.size:
        named = ", ".join(index["tile_id"][int(place)].as_py() for place in twice[:_NAMED])
        breaches.append(
            f"{twice.size} tiles are in the index twice: {named}. Build those scenes again"
        )


def shares(
    index: pa.Table, wanted: Mapping[str, float], warnings: list[str]
) -> dict[str, dict[str, float]]:
    """Return the share of tiles in each split: of all, by sensor, on land and on water.

    A share that is off by more than `SHARE_TOLERANCE` is a warning, no leak: there are few
    blocks, or many tiles between blocks, of which the smaller splits lose most.
    """
    split = index["split"].combine_chunks().indices.to_numpy()
    sensors = index["sensor"].combine_chunks()
    codes = sensors.indices.to_numpy()
    groups = {"all": np.ones(len(split), bool)}
    groups |= {str(sensors.dictionary[int(c)]): codes == c for c in np.unique(codes)}
    if _WATER in index.column_names:
        water = index[_WATER].to_numpy()
        groups |= {"land": water < 0.5, "water": water >= 0.5}
    found = {}
    for name, mask in groups.items():
        if not mask.any():
            continue
        counts = np.bincount(split[mask], minlength=len(SPLITS))
        of_each = (counts / counts.sum()).tolist()
        found[name] = dict(zip(SPLITS, of_each, strict=True))
        off = [
            f"{share:.1%} of the tiles are {part}, wanted {wanted.get(part, 0.0):.1%}"
            for part, share in found[name].items()
            if wanted and abs(share - wanted.get(part, 0.0)) > SHARE_TOLERANCE
        ]
        if off:
            warnings.append(
                f"{name}: {'; '.join(off)}: few blocks of the map so far, or many "
                "tiles left out between blocks: larger ones keep more"
            )
    return found
