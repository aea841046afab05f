"""`bench data`: what it measures of a loader, and what it says of it."""

import json

import numpy as np
import pytest
from pydantic import TypeAdapter

import configs
from hypersigma.bench import BenchDataConfig, Pace, bench_data, pace, shuffle_quality, verdict
from tests.hypersigma.runs.test_commands import call


@pytest.fixture
def benching(pretraining):
    """Return a function that makes a config of what a pretraining reads."""

    def make(batches=5, step_ms=None, **changes):
        config = pretraining(**changes)
        raw = TypeAdapter(type(config)).dump_python(config)
        raw |= {"batches": batches, "step_ms": step_ms}
        return configs.check(BenchDataConfig, raw, where="test")

    return make


@pytest.mark.parametrize("workers", [0, 1])
def test_says_how_fast_batches_come_and_at_what_step_they_are_enough(benching, workers):
    found = bench_data(benching(step_ms=3, workers=workers))
    assert (found["tiles"], found["batch_size"], found["bands"]) == (6, 2, 16)
    # Float32 tiles of 16 bands.
    assert found["mb_per_s"] == pytest.approx(found["samples_per_s"] * 16 * 64 * 64 * 4 / 1e6)
    assert found["even_step_ms"] == pytest.approx(2 / found["samples_per_s"] * 1e3)
    times = list(found["batch_ms"].values())
    assert list(found["batch_ms"]) == ["p50", "p90", "p99", "p100"]
    assert 0 <= times[0] <= times[1] <= times[2] <= times[3]
    assert 0 <= found["wait_share"] <= 1
    assert "bound at 3 ms" in found["verdict"]


class Steady:
    """Gives batches of 10 tiles of 5 bytes, each after its own number of ticks."""

    def __init__(self, clock, ticks):
        self._clock, self._ticks = clock, iter(ticks)

    def __next__(self):
        self._clock[0] += next(self._ticks)
        return type("Batch", (), {"stored": np.zeros((10, 5), np.uint8)})


def test_only_what_is_waited_for_counts_as_waiting(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda step: clock.__setitem__(0, clock[0] + step))
    got = pace(Steady(clock, [1, 2, 3]), 3, 10)
    np.testing.assert_array_equal(got.waited, [1, 2, 3])
    assert (got.seconds, got.samples, got.bytes) == (36, 30, 150)


def test_the_verdict_follows_from_the_share_of_waiting():
    free = Pace(np.full(4, 0.02), 0.08, 40, 0)
    fast = verdict(free, Pace(np.full(4, 0.001), 0.4, 40, 0), 100.0)
    slow = verdict(free, Pace(np.full(4, 0.01), 0.4, 40, 0), 90.0)
    assert fast["even_step_ms"] == pytest.approx(20)
    assert (fast["wait_share"], slow["wait_share"]) == pytest.approx((0.01, 0.1))
    assert fast["verdict"].startswith("compute-bound at 100 ms")
    assert slow["verdict"] == "loader-bound at 90 ms a batch: the device waits 10.0% of the time"
    assert "less than 20.0 ms" in verdict(free, None, None)["verdict"]


def test_shuffle_quality_of_orders_that_are_known():
    rng = np.random.default_rng(0)
    uniform = shuffle_quality(rng.permutation(20_000), 100)
    assert list(uniform.values()) == pytest.approx([1, 1, 1], abs=0.2)
    assert uniform["step"] == pytest.approx(1, abs=0.02)
    straight = shuffle_quality(np.arange(300), 10)
    # Neighbours are one apart; 270 pairs are in one batch, where a uniform shuffle puts 9.
    assert straight["step"] == straight["neighbours"] == pytest.approx(3 / 301)
    assert straight["together"] == pytest.approx(270 / 9)
    in_parts = np.concatenate([rng.permutation(100) + first for first in (200, 0, 100)])
    mixed = shuffle_quality(in_parts, 10)
    assert 0.2 < mixed["neighbours"] < 0.5
    assert mixed["together"] > 2
    assert shuffle_quality(np.array([0]), 10)["step"] == 1


def test_the_command_takes_a_pretraining_config(benching, tmp_path):
    raw = TypeAdapter(BenchDataConfig).dump_python(benching(), mode="json")
    asked = {name: raw[name] for name in ("run", "shards", "kind", "size", "bands")}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(asked | {"train": {"steps": 1, "batch_size": 3}}))
    done = call("bench", "data", path, "batches=2", "step_ms=0.5", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["batch_size"] == 3
    assert "samples_per_s" in call("bench", "data", path, "batches=2").stdout
    assert not (tmp_path / "run").exists()
    assert call("bench", "data", path, "batchs=2").exit_code == 2
    help_text = " ".join(call("bench", "data", "--help").stdout.split())
    assert "Example: hypersigma-train bench data pretrain/" in help_text


def test_every_shipped_pretraining_config_can_be_measured():
    for path in (configs.CONFIG_DIR / "pretrain").glob("*.yaml"):
        assert configs.load(BenchDataConfig, path).batches == 100
