import numpy as np
import pytest

from pipeline.split import BORDER, SplitConfig, assign, split_at

KM = 111.195


def squares(lon, lat, side_km):
    """Corners (n, 4) of squares of a side, by their south-west corner."""
    dlat = side_km / KM
    dlon = side_km / KM / np.cos(np.radians(lat))
    return lon[:, None] + dlon[:, None] * np.array([0, 1, 0, 1]), lat[:, None] + dlat * np.array(
        [1, 1, 0, 0]
    )


def grid(lon0, lat0, count, side_km=1.92):
    """Adjacent tiles of a scene, `count` x `count`."""
    i, j = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    lat = lat0 + i.ravel() * side_km / KM
    lon = lon0 + j.ravel() * side_km / KM / np.cos(np.radians(lat0))
    return squares(lon, lat, side_km)


def test_a_place_keeps_its_split_whatever_else_is_asked():
    config = SplitConfig(block_km=5, guard_m=200)
    lon, lat = grid(13.0, 52.3, 20)
    whole = assign(config, lon, lat)
    order = np.random.default_rng(0).permutation(len(lon))
    np.testing.assert_array_equal(assign(config, lon[order], lat[order]), whole[order])
    alone = [assign(config, lon[i : i + 1], lat[i : i + 1])[0] for i in range(0, 400, 37)]
    np.testing.assert_array_equal(alone, whole[::37])


def test_draws_are_those_of_the_first_version():
    lon, lat = np.linspace(-179.9, 179.9, 24), np.linspace(-85, 85, 24)
    letters = "".join(split[1] for split in split_at(SplitConfig(), lon, lat))
    assert letters == "rerrrrrrerrrarrrrrrarrra"  # the second one of train, val, test
    other = SplitConfig(block_km=6, seed=7, fractions={"train": 0.5, "val": 0.2, "test": 0.3})
    letters = "".join(split[1] for split in split_at(other, lon, lat))
    assert letters == "earrrarrereeearrerrrrrer"


def strip(lon0, lat0, size_km, heading):
    """Corners of the tiles of a scene of (across, along) size, turned clockwise by `heading`."""
    side = 1.92
    x, y = np.meshgrid(*(side * (np.arange(int(km / side)) - int(km / side) / 2) for km in size_km))
    x = x.ravel()[:, None] + side * np.array([0, 1, 0, 1])
    y = y.ravel()[:, None] + side * np.array([1, 1, 0, 0])
    cos, sin = np.cos(np.radians(heading)), np.sin(np.radians(heading))
    lat = lat0 + (y * cos - x * sin) / KM
    return lon0 + (x * cos + y * sin) / KM / np.cos(np.radians(lat)), lat


@pytest.mark.parametrize(
    ("size_km", "spread"), [((7.5, 100), 0.05), ((60, 60), 0.015)], ids=["hyperion", "ahsi"]
)
@pytest.mark.parametrize("block_km", [10, 20])
def test_fifty_scenes_of_a_sensor_have_about_the_shares(size_km, spread, block_km):
    """In six regions, so that many overlap; of the ground, as `fractions` are."""
    config = SplitConfig(block_km=block_km)
    rng = np.random.default_rng(5)
    region = rng.integers(0, 6, 50)
    lon = rng.uniform(-170, 170, 6)[region] + rng.normal(0, 0.7, 50)
    lat = rng.uniform(-55, 65, 6)[region] + rng.normal(0, 0.5, 50)
    scenes = [strip(x, y, size_km, 13) for x, y in zip(lon, lat, strict=True)]
    lon, lat = (np.concatenate(parts) for parts in zip(*scenes, strict=True))
    ground = split_at(config, lon.mean(1), lat.mean(1))
    spread *= block_km / 10
    for split, share in config.fractions.items():
        assert (ground == split).mean() == pytest.approx(share, abs=spread)
    tiles = assign(config, lon, lat)
    kept = tiles != BORDER
    # Tiles between two training blocks stay, those between splits go.
    assert 0.7 < kept.mean() < 0.95
    assert 0.8 - spread < (tiles[kept] == "train").mean() < 0.92


def test_another_seed_gives_other_splits():
    lon, lat = grid(13.0, 52.3, 20)
    first, second = (assign(SplitConfig(block_km=4, seed=seed), lon, lat) for seed in (0, 1))
    assert (first != second).mean() > 0.1


@pytest.mark.parametrize("lat0", [0.0, 52.3, -70.0])
def test_shares_are_near_the_fractions(lat0):
    config = SplitConfig(block_km=5, fractions={"train": 0.6, "val": 0.1, "test": 0.3})
    rng = np.random.default_rng(0)
    lat = lat0 + rng.uniform(0, 1.5, 20_000)
    lon = -120 + rng.uniform(0, 3, 20_000)
    got = split_at(config, lon, lat)
    for split, share in config.fractions.items():
        assert (got == split).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("guard", [0, 300, 800])
@pytest.mark.parametrize(("lon0", "lat0"), [(13.0, 52.3), (-0.1, -0.1), (179.8, 65.0)])
def test_tiles_of_two_splits_are_never_near(guard, lon0, lat0):
    config = SplitConfig(
        block_km=5, guard_m=guard, fractions={"train": 0.5, "val": 0.2, "test": 0.3}
    )
    lon, lat = grid(lon0, lat0, 24)
    lon = (lon + 180) % 360 - 180
    split = assign(config, lon, lat)
    assert set(split) == {"train", "val", "test", BORDER}
    # Distance between squares in km, on the plane that touches at the place.
    centre_y = lat.mean(1) * KM
    centre_x = ((lon[:, 0] - lon0 + 180) % 360 - 180) * KM * np.cos(np.radians(lat0)) + 0.96
    gap_y = abs(centre_y[:, None] - centre_y) - 1.92
    gap_x = abs(centre_x[:, None] - centre_x) - 1.92
    gap = np.maximum(gap_x, gap_y)
    kept = split != BORDER
    differ = (split[:, None] != split) & kept[:, None] & kept
    assert differ.any()
    assert gap[differ].min() > 2 * guard / 1000 - 1e-6
    if guard == 0:
        # Tiles that share an edge or a corner are in one split.
        assert gap[differ].min() > 1e-6


@pytest.mark.parametrize("row", [0, 400, 900, -1500])
def test_the_guard_holds_in_metres_of_the_ellipsoid(row):
    config = SplitConfig(block_km=5, guard_m=500, fractions={"train": 0.5, "val": 0.5})
    border = row * 5 / 111.19508
    lon = np.linspace(20, 30, 500)
    sides = (
        split_at(config, lon, np.full(500, border + 1e-6)),
        split_at(config, lon, np.full(500, border - 1e-6)),
    )
    # Both blocks are in their middle there, so that no other one is touched.
    place = lon[np.flatnonzero(sides[0] != sides[1])]
    gaps = []
    for x in place:
        low, high = 0.0, 0.02
        while high - low > 1e-9:
            middle = (low + high) / 2
            lat = (
                border
                + np.array([[1, 1, 0, 0], [0, 0, -1, -1]]) * 1e-4
                + np.array([[middle], [-middle]])
            )
            both = assign(config, x + np.array([[0, 1e-5, 0, 1e-5]] * 2), lat)
            low, high = (low, middle) if (both != BORDER).all() else (middle, high)
        if high < 0.0199:
            gaps.append(2 * high)
    # Source: radius of curvature in the meridian of WGS84
    meridian = (
        6378137 * (1 - 0.00669438) / (1 - 0.00669438 * np.sin(np.radians(border)) ** 2) ** 1.5
    )
    metres = np.radians(np.array(gaps)) * meridian
    assert len(metres) > 20
    assert metres.min() >= 1000
    assert np.median(metres) < 1012


def test_a_tile_within_a_block_is_kept_whatever_its_rotation():
    config = SplitConfig(block_km=50, guard_m=0)
    turn = np.radians(np.arange(0, 90, 5))
    offset = np.array([45, 135, 225, 315])
    angle = turn[:, None] + np.radians(offset)
    lat = 10.2 + 1.0 / KM * np.sin(angle)
    lon = 20.2 + 1.0 / KM * np.cos(angle)
    split = assign(config, lon, lat)
    assert set(split) == set(split_at(config, np.array([20.2]), np.array([10.2])))


def test_rejects_blocks_smaller_than_a_tile_and_its_guard():
    lon, lat = grid(13.0, 52.3, 2)
    with pytest.raises(ValueError, match="block_km must be at least"):
        assign(SplitConfig(block_km=2, guard_m=100), lon, lat)


@pytest.mark.parametrize(
    "wrong",
    [{"fractions": {"train": 0.8, "val": 0.1}}, {"fractions": {"train": 0.9, "tests": 0.1}},
     {"fractions": {"train": 1.5, "val": -0.5}}, {"block_km": 0}, {"guard_m": -1}],
)  # fmt: skip
def test_rejects_impossible_configs(wrong):
    with pytest.raises(ValueError, match="got"):
        SplitConfig(**wrong)
