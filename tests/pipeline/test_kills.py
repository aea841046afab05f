"""A build that is killed at any instant loses nothing, doubles nothing, shows no half version."""

import signal
import time
from collections import Counter

import psutil
import pytest

from tests.pipeline import kills


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return kills.undisturbed(tmp_path_factory.mktemp("undisturbed") / "world")


def test_versions_of_the_undisturbed_build(expected):
    assert list(expected) == ["v1", "v2", "v3"]
    assert [sorted(version[4]) for version in expected.values()] == [
        ["a", "b", "c"], ["a", "c", "d"], ["a", "b", "c", "d", "e", "f"],
    ]  # fmt: skip


def test_a_few_kills(tmp_path, expected):
    died = kills.disturbed(tmp_path / "w", tmp_path / "w" / "store", expected, 2, seed=1)
    assert sum(died.values()) >= 3


def test_of_builds_at_the_same_time_one_does_the_work(tmp_path, expected):
    folder = tmp_path / "w"
    folder.mkdir()
    config = kills.write_config(folder, tmp_path / "w" / "store")
    kills.change(folder, 0)
    reports = kills.run_together(config, 3)
    assert sorted(report["version"] or "" for report in reports) == ["", "", "v1"]
    assert kills.contents(tmp_path / "w" / "store") == {"v1": expected["v1"]}


def test_a_product_that_kills_its_process_does_not_stop_the_others(tmp_path):
    config = kills.write_config(tmp_path, tmp_path / "store")
    for name in "abc":
        kills.write_product(tmp_path / "raw", name, **({"kill": 1} if name == "b" else {}))
    assert kills.build(config)[0] == -signal.SIGKILL
    assert kills.contents(tmp_path / "store") == {}
    for version in ("v1", None, None):
        code, report = kills.build(config)
        assert (code, report["version"], report["failures"][0]["scene"]) == (1, version, "b")
        assert "killed by signal 9 (SIGKILL)" in report["failures"][0]["reason"]
    code, report = kills.build(config)
    assert (code, [bad["scene"] for bad in report["quarantined"]]) == (0, ["b"])
    assert list(kills.contents(tmp_path / "store")["v1"][4]) == ["a", "c"]
    kills.write_product(tmp_path / "raw", "b", seed=1)
    assert kills.build(config)[1]["added"] == ["b"]


@pytest.mark.soak
def test_a_changed_product_that_kills_who_opens_it_does_not_stop_the_others(tmp_path):
    config = kills.write_config(tmp_path, tmp_path / "store")
    for name in "ab":
        kills.write_product(tmp_path / "raw", name)
    assert kills.build(config)[0] == 0
    kills.write_product(tmp_path / "raw", "a", kill=1)
    kills.write_product(tmp_path / "raw", "c")
    assert kills.build(config)[0] == -signal.SIGKILL
    code, report = kills.build(config)
    assert (code, report["version"], report["added"]) == (1, "v2", ["c"])
    assert "killed by signal 9 (SIGKILL)" in report["failures"][0]["reason"]
    assert sorted(kills.contents(tmp_path / "store")["v2"][4]) == ["a", "b", "c"]
    for code in (1, 1, 0):
        assert kills.build(config)[0] == code


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_that_ends_leaves_no_process_behind(tmp_path, how):
    config = kills.write_config(tmp_path, tmp_path / "store")
    kills.write_product(tmp_path / "raw", "a", seconds=60)
    first = kills.start(config)
    wait_until(lambda: kills.working(tmp_path / "store") == ["a"])
    first.kill()
    first.wait(timeout=60)
    second = psutil.Popen(
        kills.command(config), cwd=kills.ROOT,
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_until(lambda: second.children(recursive=True))  # now it is worked on apart
    time.sleep(2)
    family = second.children(recursive=True)
    second.send_signal(how)
    second.wait(timeout=60)
    assert not psutil.wait_procs(family, timeout=30)[1]  # one may still be importing


def wait_until(holds):
    for _ in range(200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


@pytest.mark.soak
def test_sixty_kills(tmp_path, expected):
    died, seed = Counter(), 100
    while sum(died.values()) < 60:
        world = tmp_path / f"w{seed}"
        died += kills.disturbed(world, world / "store", expected, 6, seed)
        seed += 1
    print(dict(died))  # noqa: T201
    assert len(died) > 10
