"""A build that is killed at any instant loses nothing, doubles nothing, shows no half version."""

import signal
from collections import Counter

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
        assert "was killed (exit code -9)" in report["failures"][0]["reason"]
    code, report = kills.build(config)
    assert (code, [bad["scene"] for bad in report["quarantined"]]) == (0, ["b"])
    assert list(kills.contents(tmp_path / "store")["v1"][4]) == ["a", "c"]
    kills.write_product(tmp_path / "raw", "b", seed=1)
    assert kills.build(config)[1]["added"] == ["b"]


@pytest.mark.soak
def test_sixty_kills(tmp_path, expected):
    died, seed = Counter(), 100
    while sum(died.values()) < 60:
        world = tmp_path / f"w{seed}"
        died += kills.disturbed(world, world / "store", expected, 6, seed)
        seed += 1
    print(dict(died))  # noqa: T201
    assert len(died) > 10
