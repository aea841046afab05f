"""A bucket as the source: listed to plan, fetched to be worked on, nothing left behind."""

import hashlib
import os
import shutil

import pytest
from obstore.store import MemoryStore

import configs
from pipeline import sources
from pipeline.build import DatasetConfig, build_dataset, scene_states
from storage import store
from tests.pipeline import raw_products as raw

URL = "s3://bucket/raw"


@pytest.fixture
def bucket(monkeypatch):
    """Files below `URL`, in memory; `fetched` has the name of each that was read."""
    files, fetched = MemoryStore(), []
    real = sources.obstore.get

    def get(place, name):
        if place is files:
            fetched.append(name)
        return real(place, name)

    monkeypatch.setattr(sources, "files_at", lambda url: files)
    monkeypatch.setattr(sources.obstore, "get", get)
    return files, fetched


def test_archives_directly_below_the_prefix_are_products_and_none_is_fetched(bucket, tmp_path):
    files, fetched = bucket
    for name in ("b.zip", "a.tar.gz", "notes.txt", ".c.zip", "more/d.zip"):
        files.put(name, b"123")
    found = sources.find_products(URL, tmp_path)
    assert [product.name for product in found] == ["a.tar.gz", "b.zip"]
    assert [str(product) for product in found] == [f"{URL}/a.tar.gz", f"{URL}/b.zip"]
    assert sources.look_of(found[0])[0] == 3
    before = sources.look_of(found[1])
    files.put("b.zip", b"1234")
    assert sources.look_of(sources.find_products(URL, tmp_path)[1]) > before
    assert fetched == []


def test_nothing_below_the_prefix_is_refused(bucket):
    with pytest.raises(FileNotFoundError, match="no raw products at s3://bucket/raw"):
        sources.find_products(URL)


def test_what_is_fetched_is_whole_and_goes_afterwards(bucket, tmp_path):
    files, _ = bucket
    content = os.urandom(20_000_000)
    files.put("a.zip", content)
    (product,) = sources.find_products(URL, tmp_path / "cache")
    with sources.local(product) as path:
        assert path.name == "a.zip"
        assert path.read_bytes() == content
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_changed_since_it_was_listed_is_refused(bucket, tmp_path):
    files, _ = bucket
    files.put("a.zip", b"123")
    (product,) = sources.find_products(URL, tmp_path)
    files.put("a.zip", b"456")
    with pytest.raises(OSError, match=r"a\.zip changed while"), sources.local(product):
        raise AssertionError
    files.delete("a.zip")
    with pytest.raises(OSError, match=r"a\.zip cannot be fetched"), sources.local(product):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_it_is_full(bucket, tmp_path, monkeypatch):
    files, fetched = bucket
    files.put("a.zip", b"123")
    (product,) = sources.find_products(URL, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=2)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="set `cache` to another folder"), sources.local(product):
        raise AssertionError
    assert fetched == []


def test_leftovers_of_killed_builds_go_and_others_stay(bucket, tmp_path):
    files, _ = bucket
    files.put("a.zip", b"123")
    names = ("hypersigma-fetch-old", "hypersigma-fetch-new", "theirs")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for name in (names[0], names[2]):
        os.utime(tmp_path / name, (0, 0))
    (product,) = sources.find_products(URL, tmp_path)
    with sources.local(product):
        pass
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


@pytest.mark.parametrize("wrong", ["s3://", "s3://key:secret@bucket/raw"])
def test_a_wrong_address_or_one_with_keys_is_refused(wrong, tmp_path):
    settings = {"name": "d", "store": str(tmp_path / "s"), "recipe": "reference"}
    with pytest.raises(configs.ConfigError, match="without keys") as caught:
        configs.check(DatasetConfig, {**settings, "source": wrong}, where="here")
    assert "secret" not in str(caught.value)


def test_a_build_fetches_what_is_new_and_retires_what_is_gone(bucket, tmp_path):
    files, fetched = bucket
    archives = [put_product(files, tmp_path / str(number), number) for number in range(2)]
    config = DatasetConfig(
        "d", URL, str(tmp_path / "store"), "reference", cache=tmp_path / "cache", max_retired=1
    )
    assert len(build_dataset(config).added) == 2
    assert sorted(fetched) == sorted(name for name, _ in archives)
    group = store.open_version(config.store)
    for name, digest in archives:
        scene = group[f"scenes/{name.removesuffix('.ZIP')}"]
        assert (scene.attrs["product"], scene.attrs["sources"][0]["sha256"]) == (name, digest)
    fetched.clear()
    assert build_dataset(config).version is None
    assert [state.state for state in scene_states(config)] == ["done", "done"]
    assert fetched == []
    files.delete(archives[0][0])
    assert build_dataset(config).retired == (archives[0][0].removesuffix(".ZIP"),)
    assert fetched == []
    assert list((tmp_path / "cache").iterdir()) == []


def put_product(files, folder, number):
    """Put a small Hyperion archive into the bucket; return its name and sha256."""
    entity = f"EO1H19302{4 + number}2013205110KF"
    made = raw.write_l1t(
        folder / "unpacked", raw.hyperion_dn(seed=number), entity=entity,
        corner=(362175 + 60_000 * number, 5809965),
    )  # fmt: skip
    path = folder / f"{entity}_1T.ZIP"
    raw.zipped(made, path)
    content = path.read_bytes()
    files.put(path.name, content)
    return path.name, hashlib.sha256(content).hexdigest()
