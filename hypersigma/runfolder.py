"""A run's folder: whose it is, how far it is, and its summary.

`config.json` (resolved config and data version), `environment.json`, `metrics.jsonl`,
`tensorboard/`, `checkpoints/`, and `summary.json`, written last: a run with a summary is finished.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from hypersigma import environment
from hypersigma.inputs import SensorInput
from hypersigma.runlog import flatten, plain_json, read_metrics

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
RESUMABLE_FILE = "resumable.json"
MAY_DIFFER = frozenset(
    f"config.{name}"
    for name in (
        "train.device",
        "train.engine",
        "train.zero",
        "train.offload",
        "train.log_every",
        "train.track",
        "train.mirror",
        "train.keep",
        "train.keep_every",
        "train.guard.rewinds",
        "train.stall_seconds",
        "train.recompute",
        "workers",
        "cache_gb",
    )
)
"""What a run that goes on may be told anew: it changes nothing that is computed but in the last
digits."""
DATA_KEYS = ("dataset", "version", "snapshot", "recipe_hash")
"""What of a manifest says which data a run saw."""
FIRST_STEPS, LAST_STEPS = 5, 20
"""Steps that the first and the last loss of a summary are means of."""


class TrainError(RuntimeError):
    """A run that cannot start or go on."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int = 0
    """Finished steps."""
    stream: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    seconds: float = 0.0
    slot: int = 0
    """Steps of the stream that are behind: those made, and those left out."""
    skipped: tuple[int, ...] = ()
    """Of the stream, that are left out: something went wrong with them."""
    recent: tuple[float, ...] = ()
    """Losses that the next is compared with."""


def run_identity(
    task: str, config: Any, manifest: Mapping[str, Any], contracts: Mapping[str, SensorInput]
) -> dict[str, Any]:
    """Return what says of a checkpoint where it comes from, as plain data for `state.json`.

    Args:
        task: The command.
        config: Its resolved config, a pydantic dataclass.
        manifest: Of the shards trained on.
        contracts: The sensors trained on.
    """
    return {
        "task": task,
        "config": TypeAdapter(type(config)).dump_python(config, mode="json"),
        "data": data_version(manifest),
        "spectral": {sensor: contract.to_json() for sensor, contract in contracts.items()},
    }


def data_version(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what says which version of which data a shard set holds."""
    return {key: manifest[key] for key in DATA_KEYS}


def finished(run: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, else None.

    Raises:
        TrainError: The folder holds a run with another config or other data.
    """
    path = run / SUMMARY_FILE
    if not path.exists():
        return None
    compare(run, identity)
    logger.info("%s is finished; give another `run` folder for a new run", run)
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def claim(run: Path, identity: Mapping[str, Any]) -> None:
    """Take a run folder for this config and these data, or see that it is already theirs.

    Raises:
        TrainError: The folder holds a run with another config or other data.
    """
    mine = compare(run, identity)
    run.mkdir(parents=True, exist_ok=True)
    (run / CONFIG_FILE).write_text(json.dumps(mine, indent=1), encoding="utf-8")
    environment.record(run, identity)
    (run / RESUMABLE_FILE).unlink(missing_ok=True)


def compare(run: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what says whose run this is, if a folder holds no other one.

    What an earlier version did not know, and is off or empty here, is no difference.

    Raises:
        TrainError: It holds a run with another config or other data.
    """
    path, mine = run / CONFIG_FILE, own(identity)
    if path.exists():
        differing = differences(mine, json.loads(path.read_text(encoding="utf-8")))
        if differing:
            raise TrainError(
                f"{run} holds another run: {'; '.join(differing)}; "
                "give this one another `run` folder, or remove that one"
            )
    return mine


def own(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an identity says whose run it is."""
    return {key: identity[key] for key in ("task", "config", "data")}


def differences(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return in words where another run differs from this one in what it computes."""
    here, there = flatten(dict(mine)), flatten(dict(other))
    return [
        f"{key.removeprefix('config.')} is {there.get(key)!r} there and {here.get(key)!r} here"
        for key in sorted((here.keys() | there.keys()) - MAY_DIFFER)
        if here.get(key) != there.get(key) and (key in there or here[key])
    ]


def resumable(run: Path, progress: Progress, steps: int) -> dict[str, Any]:
    """Mark a run that a scheduler stopped as one that can go on, and return the mark."""
    mark = {"run": str(run), "resumable": True, "step": progress.step, "steps": steps}
    (run / RESUMABLE_FILE).write_text(plain_json(mark), encoding="utf-8")
    logger.info("stopped after step %d of %d; the same command goes on", progress.step, steps)
    return mark


def write_summary(
    run: Path, identity: Mapping[str, Any], progress: Progress, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Write and return what a finished run came to.

    `first_loss` and `last_loss` are means over the first 5 and the last 20 steps, `ratio` is last
    / first; without the first steps' records, of a folder that was lost, neither first_loss nor
    ratio is there. `loss_mean_spectrum` is a mean over the last 20, too; `val_*` are of the last
    look at held-out data, `best` of the best one.
    """
    records = read_metrics(run)
    numbers = _losses(records)
    summary = {
        "run": str(run),
        "task": identity["task"],
        "steps": progress.step,
        "seconds": round(progress.seconds, 2),
        **numbers,
        **{k: value for one in records[-1:] for k, value in one.items() if k.startswith("val_")},
        "best": progress.best,
        **extra,
        "data": identity["data"],
    }
    text = plain_json(summary)
    (run / SUMMARY_FILE).write_text(text, encoding="utf-8")
    written: dict[str, Any] = json.loads(text)
    return written


def _losses(records: list[dict[str, float]]) -> dict[str, float]:
    numbers = {}
    if records:
        numbers["last_loss"] = float(np.mean([record["loss"] for record in records[-LAST_STEPS:]]))
        if records[0]["step"] == 1:
            first = float(np.mean([record["loss"] for record in records[:FIRST_STEPS]]))
            numbers = {"first_loss": first, **numbers, "ratio": numbers["last_loss"] / first}
        if "loss_mean_spectrum" in records[-1]:
            plain = [record["loss_mean_spectrum"] for record in records[-LAST_STEPS:]]
            numbers["loss_mean_spectrum"] = float(np.mean(plain))
    return numbers
