import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.gaps import closest, distances, places
from storage.schema import FOOTPRINT_COORDS

# WGS84 radii, by hand
A, E2 = 6378137.0, 0.00669437999014


def radii(lat):
    s = 1 - E2 * np.sin(np.radians(lat)) ** 2
    return A * (1 - E2) / s**1.5, A / np.sqrt(s)


def table(lon, lat, sides):
    sides = np.broadcast_to(np.array(sides, "f4"), (len(lon), 4))
    columns = dict(zip(FOOTPRINT_COORDS, sides.T, strict=True))
    return places(pa.table({"lon": np.array(lon, float), "lat": np.array(lat, float), **columns}))


def at(east, north, lon0=13.0, lat0=52.0):
    """Degrees of places given in metres from one, on the radii there."""
    m, n = radii(lat0)
    east, north = np.asarray(east, float), np.asarray(north, float)
    return lon0 + np.degrees(east / (n * np.cos(np.radians(lat0)))), lat0 + np.degrees(north / m)


SQUARE = (960, 0, 0, -960)


@pytest.mark.parametrize(
    ("east", "north", "expected"),
    [(3000, 0, 1080), (0, -3000, 1080), (3000, 4000, np.hypot(1080, 2080)), (1900, 0, -20),
     (0, 0, -1920), (1920, 0, 0)],
)  # fmt: skip
def test_squares_by_hand(east, north, expected):
    found = table(*at([0, east], [0, north]), SQUARE)
    got = distances(found, np.array([0, 1]), np.array([1, 0]))
    # The place on the ellipsoid by first-order radii is itself good to a metre or two.
    np.testing.assert_allclose(got, expected, atol=3)


def test_turned_squares_meet_at_a_corner():
    turned = (960 / np.sqrt(2), 960 / np.sqrt(2), 960 / np.sqrt(2), -960 / np.sqrt(2))
    found = table(*at([0, 4000], [0, 0]), [SQUARE, turned])
    assert distances(found, np.array([0]), np.array([1]))[0] == pytest.approx(
        4000 - 960 - 960 * np.sqrt(2), abs=1
    )


def sampled(one, other, steps=60):
    """Least distance between points of two outlines."""

    def outline(corners):
        t = np.linspace(0, 1, steps)[:, None]
        return np.concatenate(
            [a + t * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
        )

    a, b = outline(one), outline(other)
    return np.sqrt(((a[:, None] - b) ** 2).sum(-1)).min()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_any_parallelograms_against_sampled_outlines(seed):
    rng = np.random.default_rng(seed)
    turn, skew = rng.uniform(0, np.pi, 2), rng.uniform(1.2, 1.9, 2)
    length = rng.uniform(500, 1500, (2, 2))
    sides = np.stack(
        [length[:, 0] * np.cos(turn), length[:, 0] * np.sin(turn),
         length[:, 1] * np.cos(turn + skew), length[:, 1] * np.sin(turn + skew)], 1,
    )  # fmt: skip
    # At the equator, where the plane's axes are the sphere's, some kilometres apart
    offset = rng.uniform(-5000, 5000, 2)
    lon, lat = at([0, offset[0]], [0, offset[1]], 20.0, 0.0)
    found = table(lon, lat, sides)
    ways = found.sides.reshape(2, 2, 2).astype(float)
    quads = [
        np.array([r * way[0] + d * way[1] for r, d in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
        for way in ways
    ]
    quads[1] = quads[1] + offset
    got = distances(found, np.array([0]), np.array([1]))[0]
    expected = sampled(*quads)
    if got > 0:
        assert got - 3 <= expected <= got + 55
    else:
        # They meet: a corner of one is in the other, or outlines cross.
        assert expected < 80 or np.linalg.norm(offset) < 1500


def test_closest_is_the_least_of_all_pairs():
    rng = np.random.default_rng(1)
    lon, lat = at(rng.uniform(0, 60_000, 400), rng.uniform(0, 60_000, 400))
    turn = rng.uniform(0, 6, 400)
    sides = 700 * np.stack([np.cos(turn), np.sin(turn), np.sin(turn), -np.cos(turn)], 1)
    found = table(lon, lat, sides)
    a, b = np.arange(0, 150), np.arange(150, 400)
    pairs = np.repeat(a, 250), np.tile(b, 150)
    every = distances(found, *pairs)
    got = closest(found, a, b, 500.0)
    assert got.distance == every.min()
    assert set(got.pair) == {pairs[0][every.argmin()], pairs[1][every.argmin()]}
    assert got.near == (every < 500).sum()
    np.testing.assert_allclose([gap for *_, gap in got.examples], np.sort(every)[:10])
    assert got.all_counted


def test_the_date_line_and_a_pole_are_no_edges():
    found = table([179.999, -179.999], [65, 65], SQUARE)
    assert distances(found, np.array([0]), np.array([1]))[0] < -1700
    found = table([0, 180], [89.98, 89.98], SQUARE)
    # 0.04 deg of latitude apart across the pole, tiles of 1920 m
    apart = 0.04 * 111694 - 1920
    assert distances(found, np.array([0]), np.array([1]))[0] == pytest.approx(apart, abs=2)


def test_tiles_of_unknown_place_are_left_out():
    found = table([13, np.nan, 13], [52, 52, 52], [SQUARE, SQUARE, (np.nan, 0, 0, 1)])
    assert found.rows.tolist() == [0]
    assert closest(found, np.array([0]), np.array([], int), 10.0) is None
