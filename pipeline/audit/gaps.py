"""How far tiles of different splits lie apart: exact between their parallelograms."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.ellipsoid import cartesian, plane
from storage.schema import FOOTPRINT_COORDS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
"""Of a tile, in its order around: signs of right and down."""
_AT_A_TIME = 200_000
"""Pairs whose distances are computed together: some 100 MB."""
MOST_PAIRS = 20_000_000
"""After so many pairs, and a breach among them, the others are not counted."""


@dataclass(frozen=True)
class Places:
    """Where all tiles of known place are; arrays over those tiles."""

    rows: Rows
    """Of the index."""
    xyz: Floats
    """Centres (tile, 3) [m]."""
    lonlat: Floats
    """Centres (tile, 2) [deg]."""
    sides: NDArray[np.float32]
    """`FOOTPRINT_COORDS` (tile, 4) [m]."""
    reach: Floats
    """Half of each tile's longer diagonal [m]."""


@dataclass(frozen=True)
class Gap:
    """What was found between two sets of tiles."""

    distance: float
    """The least [m]; below 0 for tiles that overlap, by so much at least."""
    pair: tuple[int, int]
    """The two tiles' rows of the index."""
    near: int
    """Pairs nearer than was asked for."""
    examples: tuple[tuple[int, int, float], ...]
    """The nearest of those, and their distances."""
    all_counted: bool


def places(index: pa.Table) -> Places:
    """Return the tiles whose centre and footprint are known."""
    names = ("lon", "lat", *FOOTPRINT_COORDS)
    columns = [index[name].to_numpy() for name in names]
    known = np.flatnonzero(np.isfinite(np.sum(columns, axis=0)))
    lon, lat, *sides = (column[known] for column in columns)
    right, down = np.stack(sides[:2], 1), np.stack(sides[2:], 1)
    reach = np.maximum(*(np.linalg.norm(right + sign * down, axis=1) for sign in (1.0, -1.0)))
    return Places(
        known, cartesian(lon, lat), np.stack([lon, lat], 1), np.concatenate([right, down], 1), reach
    )


def closest(found: Places, a: Rows, b: Rows, near_m: float, examples: int = 10) -> Gap | None:
    """Return the least distance between tiles `a` and `b`, and the pairs nearer than `near_m`.

    Args:
        found: All tiles; `a` and `b` are numbers of them.
        a: Some tiles.
        b: Others.
        near_m: Distance below which pairs are counted [m].
        examples: How many of those are named.

    Returns:
        None if `a` or `b` is empty.
    """
    if not len(a) or not len(b):
        return None
    if len(a) > len(b):
        a, b = b, a
    tree = cKDTree(found.xyz[b])
    apart, nearest = tree.query(found.xyz[a])
    reach = found.reach[a].max() + found.reach[b].max()
    order = np.argsort(apart, kind="stable")[:_AT_A_TIME]
    # No pair is nearer than the nearest centres' tiles unless its centres are within this.
    bound = float(distances(found, a[order], b[nearest[order]]).min())
    limit = max(bound, near_m) + reach
    best, best_pair, near, checked = np.inf, (0, 0), 0, 0
    some: list[tuple[int, int, float]] = []
    for one, other in _pairs(found, tree, a[apart <= limit], b, limit):
        between = distances(found, one, other)
        low = int(between.argmin())
        if between[low] < best:
            best, best_pair = float(between[low]), (int(one[low]), int(other[low]))
        hits = np.flatnonzero(between < near_m)
        near, checked = near + hits.size, checked + one.size
        first = hits[np.argsort(between[hits], kind="stable")[:examples]]
        some += [(int(one[i]), int(other[i]), float(between[i])) for i in first]
        some = sorted(some, key=lambda hit: hit[2])[:examples]
        if near and checked >= MOST_PAIRS:
            break
    rows = found.rows
    named = tuple((int(rows[i]), int(rows[j]), gap) for i, j, gap in some)
    pair = int(rows[best_pair[0]]), int(rows[best_pair[1]])
    return Gap(best, pair, near, named, all_counted=checked < MOST_PAIRS or not near)


def distances(found: Places, a: Rows, b: Rows) -> Floats:
    """Return the distances (pair) [m] of tiles `a` from tiles `b`; negative where they overlap.

    On the plane that touches the ellipsoid at `a`'s centre: exact to a millimetre for tiles some
    kilometres apart, to a thousandth for those hundreds of kilometres apart. The amount of an
    overlap is the least shift that ends it (separating axes).
    """
    parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(a), _AT_A_TIME)]
    return np.concatenate([np.empty(0), *(_distances(found, a[p], b[p]) for p in parts)])


def _distances(found: Places, a: Rows, b: Rows) -> Floats:
    east, north = plane(*found.lonlat[a].T)
    between = found.xyz[b] - found.xyz[a]
    offset = np.stack([(between * axis).sum(1) for axis in (east, north)], axis=1)
    one, other = _corners(found.sides[a]), _corners_seen(found, b, east, north)
    other = other + offset[:, None]
    overlap = _separation(one, other)
    apart = np.full(len(a), np.inf)
    clear = overlap > 0
    for points, edges in ((one[clear], other[clear]), (other[clear], one[clear])):
        for start, stop in zip(range(4), (1, 2, 3, 0), strict=True):
            to = _from_edge(points, edges[:, start], edges[:, stop])
            apart[clear] = np.minimum(apart[clear], to)
    result: Floats = np.where(clear, apart, overlap)
    return result


def _corners(sides: NDArray[np.float32]) -> Floats:
    """Return corners (tile, 4, 2) around the centre."""
    ways = sides.reshape(-1, 2, 2).astype(np.float64)
    corners: Floats = np.einsum("ck,tkx->tcx", _CORNERS, ways)
    return corners


def _corners_seen(found: Places, tiles: Rows, east: Floats, north: Floats) -> Floats:
    """Return corners (tile, 4, 2) of tiles around their centres, on the planes of others."""
    own = np.stack(plane(*found.lonlat[tiles].T), axis=1)
    turn = np.einsum("tkx,tax->tka", own, np.stack([east, north], axis=1))
    return np.asarray(np.einsum("tck,tka->tca", _corners(found.sides[tiles]), turn))


def _separation(one: Floats, other: Floats) -> Floats:
    """Return the widest gap (pair) along the normals of both's edges; not positive: they meet.

    Source: Gottschalk, Lin & Manocha 1996, doi:10.1145/237170.237244 (separating axes).
    """
    widest = np.full(len(one), -np.inf)
    for corners in (one, other):
        for side in (0, 1):
            edge = corners[:, side + 1] - corners[:, side]
            normal = np.stack([-edge[:, 1], edge[:, 0]], 1)
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
            first, second = (np.einsum("tcx,tx->tc", quad, normal) for quad in (one, other))
            gap = np.maximum(second.min(1) - first.max(1), first.min(1) - second.max(1))
            widest = np.maximum(widest, gap)
    return widest


def _from_edge(points: Floats, start: Floats, stop: Floats) -> Floats:
    """Return the least distance (pair) of points (pair, 4, 2) from a straight line's part."""
    along = stop - start
    length = np.maximum((along**2).sum(1), 1e-12)
    way = points - start[:, None]
    share = np.clip(np.einsum("tcx,tx->tc", way, along) / length[:, None], 0, 1)
    rest = way - share[..., None] * along[:, None]
    least: Floats = np.sqrt((rest**2).sum(2).min(1))
    return least


def _pairs(
    found: Places, tree: cKDTree, a: Rows, b: Rows, limit: float
) -> Iterator[tuple[Rows, Rows]]:
    """Yield all pairs of `a` and the tree's `b` whose centres are within `limit`, in parts."""
    start, step = 0, 4096
    while start < len(a):
        some = a[start : start + step]
        counts = tree.query_ball_point(found.xyz[some], limit, return_length=True)
        # Few enough rows that their pairs fit into memory, where many scenes lie on one another.
        fits = max(1, int(np.searchsorted(np.cumsum(counts), 5 * _AT_A_TIME)))
        some = some[:fits]
        hits = tree.query_ball_point(found.xyz[some], limit)
        sizes = [len(hit) for hit in hits]
        if sum(sizes):
            yield np.repeat(some, sizes), b[np.concatenate([np.array(h, np.int64) for h in hits])]
        start += len(some)
