"""The bytes of a set are a function of version and options: whatever happened on the way."""

import hashlib
import json
import os
import shutil
import signal
import time

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import shardwork, store, storetiles
from storage.schema import SchemaError
from storage.shards import ShardOptions, write_shards
from storage.shardset import open_shards
from tests.storage import shard_runs
from tests.storage.shard_runs import OPTIONS
from tests.storage.tiles import build, make_store, make_tiles


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def made_at(folder):
    """Return what tells a file from one that was written again."""
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns)
            for p in folder.rglob("*.tar")}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two versions and the shards of each."""
    folder = tmp_path_factory.mktemp("runs")
    repo = make_store(folder / "store")
    build(repo, make_tiles("a", 11), make_tiles("b", 9, bands=6, sensor="ahsi", shift=1))
    build(repo, make_tiles("c", 10, shift=2))
    for version in ("v1", "v2"):
        write_shards(folder / "store", folder / version, version=version, options=OPTIONS)
    return folder


@pytest.mark.slow
def test_any_number_of_jobs_gives_the_same_bytes(made, tmp_path):
    seen = []
    write_shards(made / "store", tmp_path / "out", options=OPTIONS, jobs=2,
                 progress=lambda *done: seen.append(done))  # fmt: skip
    assert contents(tmp_path / "out") == contents(made / "v2")
    assert seen == sorted(seen)
    assert seen[-1] == (30, 30)
    assert len(seen) == len(open_shards(made / "v2").manifest["shards"])


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid):
    """Return the processes that `pid` started, by Linux's /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            found += [int(entry)] * (parent == pid)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "finished"), [(1, 0), (1, 3), (2, 2), (2, 7)])
def test_a_killed_run_goes_on_where_it_was(made, tmp_path, jobs, finished):
    out = tmp_path / "out"
    process = shard_runs.start(made / "store", out, jobs=jobs, seconds=0.05)
    records = out / ".unfinished"
    wait_for(lambda: len(list(records.rglob("*.record"))) >= finished and records.exists())
    time.sleep(0.02)
    workers = children(process.pid)
    process.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said.decode()
    # Its processes end with it: none goes on writing.
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))
    with pytest.raises(SchemaError, match=r"no manifest\.json"):
        open_shards(out)
    names = {str(p.relative_to(records)).removesuffix(".record") for p in records.rglob("*.record")}
    assert len(names) >= finished
    before = made_at(out)
    write_shards(made / "store", out, options=OPTIONS)
    assert contents(out) == contents(made / "v2")
    after = made_at(out)
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


@pytest.mark.slow
def test_a_job_that_is_killed_is_said_in_words(made, tmp_path):
    process = shard_runs.start(made / "store", tmp_path / "out", jobs=2, seconds=0.05)
    records = tmp_path / "out/.unfinished"
    wait_for(lambda: any(records.rglob("*.record")))
    for worker in children(process.pid):
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"ChildProcessError: a process that wrote shards to" in said
    assert b"fewer --jobs" in said


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_run_left_the_next_one_ends_the_same(made, tmp_path_factory, data):
    out = tmp_path_factory.mktemp("left") / "out"
    left = made / "left"
    if not left.exists():  # all shards and records, and no more
        patch = pytest.MonkeyPatch()
        patch.setattr("storage.shardwriter.write_tables", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_shards(made / "store", left, options=OPTIONS)
        patch.undo()
    shutil.copytree(left, out)
    whole = made_at(out)
    files = sorted(path for path in out.rglob("*") if path.suffix in (".tar", ".record"))
    hurt = data.draw(st.sets(st.sampled_from(files), max_size=4))
    for path in sorted(hurt):
        good = path.read_bytes()
        kind = data.draw(st.sampled_from(["gone", "cut", "flipped"]))
        if kind == "gone":
            path.unlink()
        else:
            at = data.draw(st.integers(0, len(good) - 1))
            rest = b"" if kind == "cut" else bytes([good[at] ^ 255]) + good[at + 1 :]
            path.write_bytes(good[:at] + rest)
    (out / ".unfinished/dead.tmp").write_bytes(b"half a shard")
    (out / "val").mkdir(exist_ok=True)
    shutil.copy(out / "train/hyperion-000000.tar", out / "val/hyperion-000777.tar") if (
        out / "train/hyperion-000000.tar"
    ).exists() else None
    write_shards(made / "store", out, options=OPTIONS)
    assert contents(out) == contents(made / "v2")
    hurt_names = {str(path.relative_to(out)) for path in hurt}
    after = made_at(out)
    for name, stamp in whole.items():
        if name not in hurt_names and f".unfinished/{name}.record" not in hurt_names:
            assert after[name] == stamp


def test_a_run_goes_on_with_what_is_the_same_in_another_version(made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("storage.shardwriter.write_manifest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_shards(made / "store", out, version="v1", options=OPTIONS)
    write_shards(made / "store", out, version="v2", options=OPTIONS)
    assert contents(out) == contents(made / "v2")


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_unchanged_shards_are_taken_from_a_set_of_before(made, tmp_path, monkeypatch, jobs):
    out = tmp_path / "out"
    written = []
    original = shardwork._write
    monkeypatch.setattr(shardwork, "_write", lambda *a: written.append(a[2].name) or original(*a))
    write_shards(made / "store", out, options=OPTIONS, previous=made / "v1", jobs=jobs)
    assert contents(out) == contents(made / "v2")
    old, new = (
        json.loads((made / v / "manifest.json").read_text())["shards"] for v in ("v1", "v2")
    )
    known = {entry["content"] for entry in old}
    same = {entry["name"] for entry in new if entry["content"] in known}
    assert len(same) >= 4
    assert any(name.startswith("train/ahsi") for name in same)
    linked = {name for name, (inode, _) in made_at(out).items()
              if inode in {i for i, _ in made_at(made / "v1").values()}}  # fmt: skip
    assert linked == same
    if jobs == 1:
        assert set(written) == {entry["name"] for entry in new} - same


def test_shards_are_copied_where_links_cannot_be_made(made, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    write_shards(made / "store", tmp_path / "out", options=OPTIONS, previous=made / "v1")
    assert contents(tmp_path / "out") == contents(made / "v2")


def test_a_damaged_shard_of_before_is_not_taken(made, tmp_path):
    shutil.copytree(made / "v1", tmp_path / "v1")
    for path in (tmp_path / "v1").rglob("*.tar"):
        good = path.read_bytes()
        path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    before = contents(tmp_path / "v1")
    write_shards(made / "store", tmp_path / "out", options=OPTIONS, previous=tmp_path / "v1")
    assert contents(tmp_path / "out") == contents(made / "v2")
    assert contents(tmp_path / "v1") == before


def test_other_options_take_nothing(made, tmp_path):
    options = ShardOptions(tiles_per_shard=3, dtype="float32")
    write_shards(made / "store", tmp_path / "plain", options=options)
    write_shards(made / "store", tmp_path / "out", options=options, previous=made / "v2")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    stamps = {inode for inode, _ in made_at(made / "v2").values()}
    assert not stamps & {inode for inode, _ in made_at(tmp_path / "out").values()}


def test_a_changed_scene_is_written_again(tmp_path):
    location, out = tmp_path / "store", tmp_path / "out"
    repo = make_store(location)
    build(repo, make_tiles("a", 6), make_tiles("b", 6))
    write_shards(location, tmp_path / "v1", options=OPTIONS)
    build(repo, make_tiles("a", 6, seed=1))
    write_shards(location, tmp_path / "fresh", options=OPTIONS)
    write_shards(location, out, options=OPTIONS, previous=tmp_path / "v1")
    assert contents(out) == contents(tmp_path / "fresh")
    open_shards(out, verify=True)


def test_no_set_no_previous(made, tmp_path):
    with pytest.raises(SchemaError, match=r"no manifest\.json"):
        write_shards(made / "store", tmp_path / "out", previous=tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def test_bytes_that_the_disk_changes_are_noticed(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shardwork, "digest", lambda *_, **__: "another")
    with pytest.raises(SchemaError, match="the disk or the memory is faulty"):
        write_shards(made / "store", tmp_path / "out", options=OPTIONS)


def test_one_process_writes_at_a_time(made, tmp_path):
    (tmp_path / "out/.unfinished").mkdir(parents=True)
    with (
        FileLock(tmp_path / "out/.unfinished/lock"),
        pytest.raises(SchemaError, match="by one process, got a second one"),
    ):
        write_shards(made / "store", tmp_path / "out", options=OPTIONS)


def test_stores_of_before_checksums_are_told_apart_by_scenes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(storetiles, "read_checksums", lambda scene: None)
    write_shards(made / "store", tmp_path / "v1", version="v1", options=OPTIONS)
    write_shards(made / "store", tmp_path / "v2", options=OPTIONS, previous=tmp_path / "v1")
    tars = {name: found for name, found in contents(tmp_path / "v2").items() if ".tar" in name}
    assert tars.items() <= contents(made / "v2").items()
    assert {i for i, _ in made_at(tmp_path / "v1").values()} & {
        i for i, _ in made_at(tmp_path / "v2").values()
    }


def test_the_store_is_not_touched(made):
    assert [version.tag for version in store.versions(store.open_repository(made / "store"))] == [
        "v1", "v2",
    ]  # fmt: skip
