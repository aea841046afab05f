"""Kills of builds whose store is in a bucket."""

from collections import Counter

import pytest

from storage import lock
from tests.pipeline import kills

QUICK_LEASE = {"HYPERSIGMA_LEASE_SECONDS": "2"}
"""A killed build's lease is over as soon, or each kill would cost a minute."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return kills.undisturbed(tmp_path_factory.mktemp("undisturbed") / "world")


def test_a_few_kills(tmp_path, location, expected):
    died = kills.disturbed(tmp_path / "w", location, expected, 1, seed=2, env=QUICK_LEASE)
    assert sum(died.values()) >= 2
    assert not lock.is_locked(location)


def test_of_builds_at_the_same_time_one_does_the_work(tmp_path, location, expected):
    folder = tmp_path / "w"
    folder.mkdir()
    config = kills.write_config(folder, location)
    kills.change(folder, 0)
    reports = kills.run_together(config, 3, env=QUICK_LEASE)
    assert sorted(report["version"] or "" for report in reports) == ["", "", "v1"]
    assert kills.contents(location) == {"v1": expected["v1"]}


@pytest.mark.soak
def test_sixty_kills(tmp_path, location, expected):
    died, seed = Counter(), 200
    while sum(died.values()) < 60:
        place = f"{location}-{seed}"
        died += kills.disturbed(tmp_path / f"w{seed}", place, expected, 6, seed, QUICK_LEASE)
        seed += 1
    print(dict(died))  # noqa: T201
    assert len(died) > 10
