"""The scheduled flow: build, audit, shards and report of a dataset; the work is done elsewhere."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.utilities.urls import url_for

import configs
from pipeline import alerts, outputs
from pipeline.build import BuildReport, DatasetConfig
from pipeline.flows.artefacts import show_report
from pipeline.flows.build_dataset import ScenesFailedError, build_flow
from pipeline.states import States
from storage.schema import SchemaError
from storage.store import Version

logger = logging.getLogger(__name__)

ONE_AT_A_TIME = ConcurrencyLimitConfig(
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
)
"""Of a deployment: a firing that comes while the last one runs is dropped; the next sees all."""

_STEP: dict[str, Any] = {
    "retries": 1,
    "retry_delay_seconds": 30,
    "retry_condition_fn": lambda _task, _run, state: not _is_refusal(state),
    "cache_policy": NO_CACHE,  # outputs and store are the only memory of what is done
    "persist_result": False,
}
audit_version = task(name="audit", task_run_name="audit {version.tag}", **_STEP)(outputs.audited)
make_shards = task(name="shards", task_run_name="shards {version.tag}", **_STEP)(
    outputs.make_shards
)
make_report = task(name="report", task_run_name="report {version.tag}", **_STEP)(
    outputs.make_report
)


class RunFailedError(RuntimeError):
    """A scheduled run did what it could, and not all."""

    def __init__(self, problems: Sequence[Exception], built: BuildReport) -> None:
        super().__init__("; ".join(_in_words(problem) for problem in problems))
        self.built = built


def tell(flow: Any, flow_run: Any, state: Any) -> None:
    """Alert of a run that failed or crashed; raises nothing."""
    try:
        parameters = flow_run.parameters
        config = configs.load(
            DatasetConfig, parameters["config_path"], parameters.get("overrides") or ()
        )
        error = state.result(raise_on_failure=False) if state.is_failed() else None
        built = error.built if isinstance(error, RunFailedError) else None
        _alert(config, state.name.lower(), str(error or state.message), built, flow_run.id)
    except Exception:  # a hook has nobody above it who could do anything
        logger.exception("no alert could be made of this run")


@flow(
    name="dataset",
    flow_run_name="{config_path}",
    on_failure=[tell],
    on_crashed=[tell],
)
def dataset_flow(config_path: str, overrides: Sequence[str] = ()) -> str | None:
    """Build what is new at the source; then audit, shards and report of the current version.

    What is there already is left as it is, so that a run with nothing new does nothing, and one
    after a crash what is missing.

    Returns:
        The current version's tag, None if there is none yet.

    Raises:
        RunFailedError: At the end: scenes failed, the version leaks and has no shards, or one of
            its outputs could not be made.
    """
    config = configs.load(DatasetConfig, config_path, overrides)
    problems: list[Exception] = []
    try:
        built = build_flow(config_path, overrides)
    except ScenesFailedError as error:
        built = error.report
        problems.append(error)
    except SchemaError as error:  # refused: what there is has its outputs all the same
        built = BuildReport(version=None, added=(), tiles=0, failures=())
        problems.append(error)
    _tell_of_quarantine(config, built)
    version = outputs.head(config.store)
    if version is not None:
        problems += _make_outputs(config, version)
    if problems:
        raise RunFailedError(problems, built)
    return version.tag if version else None


def _make_outputs(config: DatasetConfig, version: Version) -> list[Exception]:
    """Make what is made of a version; return what went wrong. One failure hides no other."""
    problems: list[Exception] = []
    try:
        certificate: outputs.Certificate = audit_version(config.store, version)
    except outputs.LeakError as error:
        certificate = dict(error.certificate)
        problems.append(error)
    except Exception as error:  # without a certificate there is neither of the others
        return [error]
    try:
        if certificate["passed"]:
            make_shards(config, version, certificate)
    except Exception as error:
        problems.append(error)
    try:
        if folder := make_report(config, version, certificate):
            show_report(config, folder)
    except Exception as error:
        problems.append(error)
    return problems


def _tell_of_quarantine(config: DatasetConfig, built: BuildReport) -> None:
    """Alert of products that this build has given up."""
    states = States(config.store)
    names = {bad.scene for bad in built.failures if states[bad.scene].state == "quarantined"}
    if names:
        text = f"left alone from now on: {', '.join(sorted(names))}"
        try:
            _alert(config, "quarantined", text, built, runtime.flow_run.id)
        except Exception:  # the store may be away; the build is done all the same
            logger.exception("no alert could be made of what is in quarantine")


def _alert(
    config: DatasetConfig, event: str, message: str, built: BuildReport | None, run: Any
) -> None:
    version = outputs.head(config.store)
    named = {"failures": built.failures if built else (),
             "quarantined": built.quarantined if built else ()}  # fmt: skip
    alerts.send(config.alerts, {
        "text": f"{config.name}: {event}: {message}",
        "event": event,
        "dataset": config.name,
        "version": version.tag if version else None,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: [{"product": bad.scene, "reason": bad.reason} for bad in bads]
           for name, bads in named.items()},
        "link": url_for("flow-run", obj_id=run),
    })  # fmt: skip


def _in_words(problem: Exception) -> str:
    known = isinstance(problem, ValueError | OSError | ScenesFailedError)
    return str(problem) if known else f"{type(problem).__name__}: {problem}"


def _is_refusal(state: Any) -> bool:
    """Return whether a task failed for a reason that another try will not change."""
    return isinstance(state.result(raise_on_failure=False), ValueError)
