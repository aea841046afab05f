"""The audit of a version: what `hypersigma-data audit` proves."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from pipeline.audit.certificate import Certificate, Copies, Place
from pipeline.audit.copies import near_copies
from pipeline.audit.gaps import Places, closest, places
from pipeline.audit.totals import reconcile, shares
from storage.index import read_index
from storage.location import Location
from storage.schema import PATTERN, SPLITS
from storage.store import find_version, open_repository

TOLERANCE_M = 1.0
"""The parallelogram of a tile on lines of longitude and latitude is off by 0.2 m at 52 deg."""
_NAMED = 10
Rows = NDArray[np.int64]


def audit(location: Location, version: str | None = None) -> Certificate:
    """Prove that a version's splits share no place and no picture, from its index alone.

    Args:
        location: The store.
        version: A tag, or None for the head.

    Raises:
        storage.schema.SchemaError: No store, or no such version.
    """
    repo = open_repository(location)
    chosen = find_version(repo, version)
    group = zarr.open_group(repo.readonly_session(snapshot_id=chosen.snapshot).store, mode="r")
    index = read_index(group)
    breaches: list[str] = []
    warnings: list[str] = []
    config = _split_config(group, warnings)
    promised = 2 * float(config.get("guard_m", 0.0))
    split = _codes(index, "split")
    where = places(index)
    # One row's own name at a time: a million names in Python's memory are not needed.
    names = index["tile_id"]
    apart = [
        _place(where, split, pair, promised, names, breaches) for pair in combinations(range(3), 2)
    ]
    counts = reconcile(group, index, breaches)
    several, nearest = _within_scenes(where, split, _codes(index, "scene_id"))
    return Certificate(
        version=chosen.tag,
        snapshot=chosen.snapshot,
        recipe_hash=chosen.recipe_hash,
        audited_at=datetime.now(UTC).isoformat(timespec="seconds"),
        scenes=chosen.scenes,
        tiles=len(index),
        promised_m=promised,
        tolerance_m=TOLERANCE_M,
        places=tuple(apart),
        scenes_in_several_splits=several,
        nearest_within_a_scene_m=nearest,
        copies=_copies(index, split, breaches, warnings),
        unknown_place=_unknown(where, split, breaches, warnings),
        counts=counts,
        shares=shares(index, config.get("fractions", {}), warnings),
        passed=not breaches,
        breaches=tuple(breaches),
        warnings=tuple(warnings),
    )


def _split_config(group: zarr.Group, warnings: list[str]) -> Mapping[str, Any]:
    try:
        config: Mapping[str, Any] = json.loads(str(group.attrs["recipe"]))["split"]
    except (ValueError, KeyError):
        warnings.append(
            "the store's recipe does not say how it was split: overlaps alone are breaches, and "
            "shares are not compared"
        )
        return {}
    return config


def _codes(index: pa.Table, name: str) -> NDArray[np.int32]:
    return np.asarray(index[name].combine_chunks().indices.to_numpy())


def _place(
    where: Places,
    split: NDArray[np.int32],
    pair: tuple[int, int],
    promised: float,
    names: pa.ChunkedArray,
    breaches: list[str],
) -> Place:
    """Return where tiles of two splits are nearest, a breach if that is nearer than promised."""
    two = SPLITS[pair[0]], SPLITS[pair[1]]
    here = split[where.rows]
    one, other = (np.flatnonzero(here == code) for code in pair)
    gap = closest(where, one, other, promised - TOLERANCE_M, _NAMED)
    if gap is None:
        return Place(two, None, (), 0, all_counted=True)
    tiles = tuple(names[row].as_py() for row in gap.pair)
    if gap.near:
        named = "; ".join(
            f"{names[a]} and {names[b]} " + ("overlap" if m < 0 else f"are {m:.0f} m apart")
            for a, b, m in gap.examples
        )
        breaches.append(
            f"{two[0]} and {two[1]}: {'' if gap.all_counted else 'more than '}{gap.near} pairs of "
            f"tiles are nearer than {promised:g} m: {named}. Rebuild those scenes with the "
            "store's own recipe, or leave one scene of each pair out"
        )
    return Place(two, max(gap.distance, 0.0), tiles, gap.near, gap.all_counted)


def _within_scenes(
    where: Places, split: NDArray[np.int32], scene: NDArray[np.int32]
) -> tuple[int, float | None]:
    """Return how many scenes have tiles in several splits, and how near those are at least."""
    count = int(scene.max(initial=-1)) + 1
    has = np.zeros((count, len(SPLITS)), bool)
    has[scene, split] = True
    several = np.flatnonzero(has.sum(1) > 1)
    here, of = split[where.rows], scene[where.rows]
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(count + 1))
    least = []
    for number in several:
        rows = order[starts[number] : starts[number + 1]]
        sets = [rows[here[rows] == code] for code in range(len(SPLITS))]
        gaps = [closest(where, a, b, -np.inf) for a, b in combinations(sets, 2)]
        least += [gap.distance for gap in gaps if gap]
    return len(several), max(min(least), 0.0) if least else None


def _copies(
    index: pa.Table, split: NDArray[np.int32], breaches: list[str], warnings: list[str]
) -> Copies:
    """Return tiles that look the same; a breach across splits, a duplicate within one."""
    words = index[PATTERN].to_numpy()
    rows = np.flatnonzero(words)
    unique, first, which = np.unique(words[rows], return_index=True, return_inverse=True)
    first = rows[first]
    seen = np.zeros((unique.size, len(SPLITS)), bool)
    seen[which, split[rows]] = True
    shared = np.flatnonzero(seen.sum(1) > 1)
    one, other = near_copies(unique)
    # Two hashes that are each in one and the same split alone are no breach.
    joint = (seen[one] | seen[other]).sum(1) > 1
    own = np.bincount(which * len(SPLITS) + split[rows], minlength=seen.size)
    within = int(np.maximum(own - 1, 0).sum() + (~joint).sum())
    names = index["tile_id"]
    if shared.size or joint.any():
        sets = [rows[np.flatnonzero(which == number)] for number in shared[:_NAMED]]
        sets += [first[[a, b]] for a, b in zip(one[joint], other[joint], strict=True)][:_NAMED]
        named = "; ".join(" = ".join(_one_a_split(names, split, tiles)) for tiles in sets[:_NAMED])
        breaches.append(
            f"{shared.size + int(joint.sum())} pictures are in several splits: {named}. Take one "
            "of the two products out of the source and build again"
        )
    if within:
        warnings.append(f"{within} tiles are copies of others in their own split")
    without = len(words) - rows.size
    if without:
        warnings.append(f"{without} tiles have no spectral hash and were not compared")
    return Copies(shared.size + int(joint.sum()), within, without)


def _one_a_split(names: pa.ChunkedArray, split: NDArray[np.int32], tiles: Rows) -> list[str]:
    """Return names of tiles, one a split, or of the first two if they are in one."""
    _, first = np.unique(split[tiles], return_index=True)
    some = tiles[first] if first.size > 1 else tiles[:2]
    return [f"{names[int(row)]} ({SPLITS[split[row]]})" for row in some]


def _unknown(
    where: Places, split: NDArray[np.int32], breaches: list[str], warnings: list[str]
) -> dict[str, int]:
    """Return tiles of unknown place by split; in several splits nothing is known of them."""
    rest = np.ones(len(split), bool)
    rest[where.rows] = False
    found = np.bincount(split[rest], minlength=len(SPLITS))
    by_split = {name: int(n) for name, n in zip(SPLITS, found, strict=True) if n}
    words = f"{int(found.sum())} tiles have no known place or footprint: {by_split}"
    if len(by_split) > 1:
        breaches.append(f"{words}; more than one split has such. Build the store anew")
    elif by_split:
        warnings.append(words)
    return by_split
