"""Builds over an object store that fails: published or refused, and nothing published is hurt."""

import icechunk
import numpy as np
import obstore
import pytest
import zarr

from storage import store
from tests.integration.fault_proxy import FAULTS, fault_proxy
from tests.integration.test_services import object_store
from tests.storage.tiles import build, make_store, make_tiles

BROKEN = (icechunk.IcechunkError, zarr.errors.BaseZarrError, OSError)


@pytest.fixture
def proxy(objects, location, monkeypatch):
    """A proxy without faults yet, and this process behind it."""
    with fault_proxy(objects["AWS_ENDPOINT_URL"], seed=7) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


def test_a_signature_holds_through_the_proxy(objects, location, proxy):
    through = object_store({**objects, "AWS_ENDPOINT_URL": proxy.url}, location)
    for name in ("plain", "with space & ü"):
        through.put(name, b"x" * 100_000, mode="create")
        assert bytes(through.get_range(name, start=5, length=7)) == b"x" * 7
        assert through.head(name)["size"] == 100_000
    assert [item["path"] for page in through.list() for item in page] == ["plain", "with space & ü"]
    build(make_store(f"{location}-store"), make_tiles("s1"))
    assert proxy.done["passed"] > 20
    assert set(proxy.done) == {"passed"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_what_it_says(objects, location, proxy, fault):
    direct = object_store(objects, location)
    direct.put("old", b"x" * 100_000)
    through = object_store({**objects, "AWS_ENDPOINT_URL": proxy.url}, location)
    proxy.rates = {fault: 1.0}
    if fault == "delay":
        through.put("new", b"1")
    elif fault == "truncate":
        with pytest.raises(obstore.exceptions.BaseError):
            through.get("old").bytes()
    else:
        with pytest.raises(obstore.exceptions.BaseError):
            through.put("new", b"1")
    assert set(proxy.done) == {fault}
    written = {item["path"].split("/")[-1] for page in direct.list() for item in page}
    assert ("new" in written) == (fault in ("delay", "lost_response"))


def test_builds_through_faults(location, objects, proxy, monkeypatch):
    run_builds(location, objects, proxy, monkeypatch, builds=6, rate=0.01)


@pytest.mark.soak
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.05])
def test_many_builds_through_faults(location, objects, proxy, monkeypatch, rate):
    run_builds(location, objects, proxy, monkeypatch, builds=20, rate=rate)


def run_builds(location, objects, proxy, monkeypatch, *, builds, rate):
    make_store(location)
    proxy.rates = dict.fromkeys(FAULTS, rate)
    published, failures = {}, []
    for number in range(builds):
        try:
            repo = store.open_repository(location)
            missing = {f"s{i}" for i in range(number + 1)} - set(store.scenes(repo))
            version = build(repo, *map(make_tiles, sorted(missing)))
        except BROKEN as error:
            failures.append(error)
            continue
        published[version.tag] = version.scenes
    print(dict(proxy.done), f"{len(published)} published,", failures)  # noqa: T201  # if it fails
    assert set(proxy.done) > {"passed"}
    assert published
    monkeypatch.setenv("AWS_ENDPOINT_URL", objects["AWS_ENDPOINT_URL"])
    check_whole(location, published)


def check_whole(location, published):
    """Read all tiles of all versions; those that a build reported must be among them."""
    repo = store.open_repository(location)
    store.begin(repo)  # tags the head, if the connection went between commit and tag
    versions = store.versions(repo)
    assert [version.tag for version in versions] == [f"v{n + 1}" for n in range(len(versions))]
    assert published.items() <= {version.tag: version.scenes for version in versions}.items()
    seen = set()
    for version in versions:
        group = store.open_version(location, version.tag)
        names = set(group["scenes"].group_keys())
        assert len(names) == version.scenes
        assert names > seen
        seen = names
        for name in names:
            expected = make_tiles(name)
            got = store.scene_dataset(group, name)
            np.testing.assert_array_equal(got.tiles.values, expected.tiles.values)
            np.testing.assert_array_equal(got.valid.values, expected.valid.values)
