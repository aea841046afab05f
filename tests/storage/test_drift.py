import numpy as np
import pytest

from storage import store
from storage.drift import drift, psi
from storage.statistics import read_statistics
from tests.storage.tiles import build, make_store, make_tiles


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


def test_drift_names_the_bands_that_moved(repo):
    moved = make_tiles("b", 20, seed=9)
    moved.tiles[:, 1] += 2000
    one = build(repo, make_tiles("a", 20), make_tiles("f", 5, sensor="ahsi")).tag
    fork = store.begin(repo).fork()
    store.write_scene(fork, moved)
    two = store.commit_version(repo, {"b": fork}, removed={"a", "f"}, code_version="1").tag
    (sensor,) = found = drift(repo, one, two)
    assert sensor == "hyperion"
    got = found["hyperion"]
    assert got.notable == got.large == (9,)
    assert got.bands[9] == got.max > 0.25
    assert got.median < 0.02
    assert set(got.bands) == {8, 9, 10, 11}
    assert drift(repo, two, two)["hyperion"].max == 0


def test_a_version_without_statistics_has_no_drift(repo, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("storage.versions.add_statistics", lambda *groups: None)
        build(repo, make_tiles("a"))
    build(repo, make_tiles("b"))
    assert drift(repo, "v1", "v2") == {}


def test_statistics_of_a_version_are_of_its_scenes_whatever_came_before(repo, location):
    build(repo, make_tiles("a"), make_tiles("b"))
    build(repo, make_tiles("a", seed=5), make_tiles("c", 3))
    store.begin(repo)
    store.commit_version(repo, removed={"b"}, code_version="1")
    found = read_statistics(store.open_version(location), split="all")["hyperion"]
    other = location.with_name("other")
    build(make_store(other), make_tiles("a", seed=5), make_tiles("c", 3))
    expected = read_statistics(store.open_version(other), split="all")["hyperion"]
    assert found.scenes == expected.scenes == 2
    for name in ("count", "mean", "std", "quantiles"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
