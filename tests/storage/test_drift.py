import numpy as np
import pytest
import zarr

from storage import store
from storage.drift import drift, psi
from storage.statistics import add_statistics
from tests.storage.tiles import build, make_tiles


def test_psi_of_tables_by_hand():
    # Ten bins of one decile each, a tenth of them moved from the first to the last.
    a = np.full((1, 10), 10_000_000)
    b = a.copy()
    b[0, 0], b[0, 9] = 5_000_000, 15_000_000
    expected = (0.05 - 0.1) * np.log(0.05 / 0.1) + (0.15 - 0.1) * np.log(0.15 / 0.1)
    assert psi(a, b)[0] == pytest.approx(expected, rel=1e-6)
    assert psi(a, a)[0] == 0
    assert psi(a, 3 * a)[0] == pytest.approx(0, abs=1e-12)


def test_psi_of_normal_populations():
    rng = np.random.default_rng(0)
    edges = np.linspace(-8, 8, 801)
    counts = [np.histogram(rng.normal(m, 1, 400_000), edges)[0] for m in (0, 0, 0.5)]
    same, moved = psi(np.stack(counts[:1] * 2), np.stack(counts[1:]))
    assert same < 0.001
    # Jeffreys' divergence of two normals is the squared distance; ten groups lose little of it.
    assert 0.2 < moved < 0.25


def test_a_band_without_pixels_cannot_be_compared():
    counts = np.array([[0, 0], [5, 5]])
    np.testing.assert_array_equal(np.isfinite(psi(counts, counts)), [False, True])
    np.testing.assert_array_equal(psi(np.array([[7]]), np.array([[9]])), [0])


def publish_statistics(repo, location, *names):
    """What a commit does with the statistics, in one more version."""
    session = store.begin(repo)
    root = zarr.open_group(session.store, mode="r+")
    if "statistics" in root:
        del root["statistics"]
    add_statistics(root, [root[f"scenes/{name}"] for name in names])
    metadata = next(repo.ancestry(branch="main")).metadata
    tag = f"v{len(store.versions(repo)) + 1}"
    session.commit(tag, {**metadata, "version": tag})
    store.versions(repo)
    repo.create_tag(tag, repo.lookup_branch("main"))
    return tag


def test_drift_names_the_bands_that_moved(repo, location):
    moved = make_tiles("b", 20, seed=9)
    moved.tiles[:, 1] += 2000
    build(repo, make_tiles("a", 20), make_tiles("f", 5, sensor="ahsi"), moved)
    one = publish_statistics(repo, location, "a", "f")
    two = publish_statistics(repo, location, "b")
    (sensor,) = found = drift(repo, one, two)
    assert sensor == "hyperion"
    got = found["hyperion"]
    assert got.notable == got.large == (9,)
    assert got.bands[9] == got.max > 0.25
    assert got.median < 0.02
    assert set(got.bands) == {8, 9, 10, 11}
    assert drift(repo, "v1", one) == {}
    assert drift(repo, two, two)["hyperion"].max == 0
