import numpy as np

from storage.patterns import patterns


def fields(count, bands=12, seed=0, slope=1.0):
    """Tiles (tile, band, 64, 64) with the spectrum of natural pictures, a few spectra mixed."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    radius[0, 0] = 1
    noise = np.fft.rfft2(rng.standard_normal((count, 2, 64, 64))) / radius**slope
    noise[..., 0, 0] = 0
    parts = np.fft.irfft2(noise)
    mix = rng.uniform(0.2, 1, (count, bands, 2))
    return 2000 + 20 * np.einsum("tbk,tkyx->tbyx", mix, parts)


ALL = np.ones((1, 64, 64), bool)


def distance(a, b):
    return np.bitwise_count(a ^ b)


def test_a_copy_keeps_its_pattern():
    tiles = fields(200)
    valid = np.broadcast_to(ALL, (200, 64, 64))
    found = patterns(tiles.round().astype("int16"), valid)
    assert len(set(found.tolist())) == 200
    np.testing.assert_array_equal(
        patterns(tiles[7:9].round().astype("int16"), valid[:2]), found[7:9]
    )
    as_reflectance = patterns((tiles / 4000 + 0.01).astype("float32"), valid)
    noisy = tiles + np.random.default_rng(1).normal(0, 0.3, tiles.shape)
    for other in (as_reflectance, patterns(noisy.round().astype("int16"), valid)):
        assert (distance(found, other) <= 3).mean() > 0.98


def test_unlike_tiles_differ_in_half_of_their_bits():
    tiles = np.concatenate([fields(1500), fields(1500, seed=1, slope=2.0)]).astype("float32")
    found = patterns(tiles, np.broadcast_to(ALL, (3000, 64, 64)))
    apart = distance(found[:, None], found)[~np.eye(3000, dtype=bool)]
    assert abs(apart.mean() - 32) < 1
    assert apart.min() > 8


def test_straight_coasts_of_one_direction_are_not_alike():
    rng = np.random.default_rng(0)
    land = np.where(np.arange(64) < 31, 2000, 100)[None, None, None] + np.zeros((300, 12, 64, 1))
    tiles = (land + rng.normal(0, 15, (300, 1, 64, 64))).round().astype("int16")
    found = patterns(tiles, np.broadcast_to(ALL, (300, 64, 64)))
    assert distance(found[:, None], found)[~np.eye(300, dtype=bool)].min() > 3


def test_a_tile_without_differences_has_no_pattern():
    flat = np.full((3, 12, 64, 64), 7, "int16")
    flat[1] = 0
    unknown = np.full((1, 12, 64, 64), np.nan, "float32")
    assert patterns(flat, np.broadcast_to(ALL, (3, 64, 64))).tolist() == [0, 0, 0]
    assert patterns(unknown, ALL).tolist() == [0]


def test_what_is_not_valid_does_not_count():
    tiles = fields(1).round().astype("int16")
    valid = ALL.copy()
    valid[0, :20, :20] = False
    other = tiles.copy()
    other[..., :20, :20] = -32767
    np.testing.assert_array_equal(patterns(tiles, valid), patterns(other, ALL))
