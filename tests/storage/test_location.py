import multiprocessing
import threading

import pytest

from storage.location import icechunk_storage, local_path
from storage.lock import commit_lock
from storage.schema import SchemaError
from tests.storage.locks import hold
from tests.storage.tiles import make_store


def test_only_one_process_commits_at_a_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "demo", ready, go))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(TimeoutError, match="another build"),
        commit_lock(tmp_path / "demo", timeout=0.05),
    ):
        pass
    go.set()
    other.join(60)
    with commit_lock(tmp_path / "demo"):
        assert not (tmp_path / "demo").exists()


def test_the_second_waits_for_the_first(tmp_path):
    order = []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with commit_lock(tmp_path / "demo"):
            inside.set()
            leave.wait(60)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    threading.Timer(0.05, leave.set).start()
    with commit_lock(tmp_path / "demo"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_folders_and_file_urls_are_local(tmp_path, monkeypatch):
    assert local_path(tmp_path) == local_path(f"file://{tmp_path}") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert local_path("demo") == tmp_path / "demo"
    assert local_path("s3://bucket/demo") is None


def test_an_object_store_takes_its_endpoint_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    shown = repr(icechunk_storage("s3://bucket/a/b/"))
    assert "bucket" in shown
    assert "a/b" in shown
    assert "127.0.0.1:9000" in shown
    assert "very-secret" not in shown


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket/x", "s3:///x", "s3://key:pw@bucket/x"])
def test_other_urls_are_refused_without_saying_secrets(url):
    with pytest.raises(SchemaError, match="folder or s3://bucket/prefix") as refusal:
        icechunk_storage(url)
    assert "pw" not in str(refusal.value)


def test_opening_a_store_says_nothing_on_stderr(tmp_path, capfd):
    make_store(tmp_path / "demo")
    assert capfd.readouterr() == ("", "")
