"""A run's numbers to trackio, Weights & Biases or MLflow, where one is asked for and installed."""

import importlib
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hypersigma.runfolder import CONFIG_FILE, TrainError
from hypersigma.runlog import flatten

logger = logging.getLogger(__name__)

type TrackerName = Literal["none", "trackio", "wandb", "mlflow"]

type Track = Callable[[int, Mapping[str, float]], None]
"""Takes the numbers of a finished step, counted from 1."""

PROJECT = "hypersigma"
TRACKER_FILE = "tracker.json"
"""In the run folder: under which id the tracker knows the run, so that one that goes on is one."""
_TEXT = 500
"""Letters of a parameter's value that MLflow takes."""


@contextmanager
def tracker(name: TrackerName, run: Path) -> Iterator[Track]:
    """Yield what tells the tracker `name` each step's numbers; `none` drops them.

    Where a tracker keeps them, and with which key, it is told by its own environment variables.

    Args:
        name: Which one.
        run: A run's folder that is claimed; the tracker gets its config.

    Raises:
        TrainError: The tracker is not installed.
    """
    if name == "none":
        yield lambda step, record: None
        return
    module = _imported(name)
    with TRACKERS[name](module, run, json.loads((run / CONFIG_FILE).read_text("utf-8"))) as track:
        yield _at_best(name, track)


def _at_best(name: str, track: Track) -> Track:
    """Return what tells a tracker, and warns of its first failure in place of failing."""
    failed: list[Exception] = []

    def told(step: int, record: Mapping[str, float]) -> None:
        try:
            track(step, record)
        except Exception as error:  # whatever a server elsewhere answers, the training goes on
            if not failed:
                logger.warning(
                    "step %d was not told to %s: %r; training goes on", step, name, error
                )
            failed.append(error)

    return told


@contextmanager
def _wandb(wandb: Any, run: Path, config: dict[str, Any]) -> Iterator[Track]:
    """Source: https://docs.wandb.ai/ref/python/init/ ."""
    opened = wandb.init(
        project=PROJECT, name=run.name, id=_known(run) or _note(run, uuid.uuid4().hex),
        resume="allow", dir=str(run), config=config,
    )  # fmt: skip
    try:
        yield lambda step, record: opened.log(dict(record), step=step)
    finally:
        opened.finish()


@contextmanager
def _trackio(trackio: Any, run: Path, config: dict[str, Any]) -> Iterator[Track]:
    """Its runs go on by their names. Source: https://huggingface.co/docs/trackio ."""
    name = _known(run) or _note(run, f"{run.name}-{uuid.uuid4().hex[:8]}")
    trackio.init(project=PROJECT, name=name, resume="allow", config=config)
    try:
        yield lambda step, record: trackio.log(dict(record), step=step)
    finally:
        trackio.finish()


@contextmanager
def _mlflow(mlflow: Any, run: Path, config: dict[str, Any]) -> Iterator[Track]:
    """Source: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.html ."""
    mlflow.set_experiment(PROJECT)
    known = _known(run)
    opened = mlflow.start_run(run_id=known, run_name=None if known else run.name)
    if known is None:
        _note(run, opened.info.run_id)
        mlflow.log_params({key: str(value)[:_TEXT] for key, value in flatten(config).items()})
    try:
        yield lambda step, record: mlflow.log_metrics(dict(record), step=step)
    finally:
        mlflow.end_run()


TRACKERS = {"trackio": _trackio, "wandb": _wandb, "mlflow": _mlflow}


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise TrainError(
            f"train.track is {name}, which is not installed: `pip install {name}` into this "
            "environment, or give train.track=none"
        ) from error


def _known(run: Path) -> str | None:
    path = run / TRACKER_FILE
    if not path.is_file():
        return None
    found: str = json.loads(path.read_text(encoding="utf-8"))["id"]
    return found


def _note(run: Path, name: str) -> str:
    (run / TRACKER_FILE).write_text(json.dumps({"id": name}), encoding="utf-8")
    return name
