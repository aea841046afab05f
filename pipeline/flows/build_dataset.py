"""Build a dataset version, one Prefect task per scene; the work is `pipeline.build`."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

import configs
from pipeline.build import BuildReport, DatasetConfig, build_dataset
from pipeline.coordinator import Ingested
from pipeline.engines import Outcome, Work, failure
from pipeline.flows.artefacts import show_build
from pipeline.plan import Task
from pipeline.sources import Product
from storage.schema import SchemaError

SCENES_AT_ONCE = 2  # Dask uses the cores inside a scene; a second one overlaps reading and writing


def worth_retrying(_task: object, _run: object, state: Any) -> bool:
    """Return whether another try may help: a product that breaks the contract stays broken."""
    try:
        state.result()
    except SchemaError:
        return False
    except Exception:
        return True
    return False


def _ingest(path: Product, work: Work) -> Ingested:
    return work(path)


ingest_scene = task(
    name="ingest scene",
    task_run_name="ingest {path.name}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,  # the store is the only memory of what is done
    persist_result=False,
)(_ingest)


def run_as_tasks(tasks: Sequence[Task], start: Callable[[Task], Work]) -> Iterator[Outcome]:
    """Run one Prefect task a scene and yield each scene's outcome, in the order of `tasks`.

    Few are submitted ahead: what waits in memory does not grow with the number of scenes.
    """
    waiting = iter(tasks)
    running: deque[tuple[Task, Any]] = deque()
    while True:
        for scene in itertools.islice(waiting, SCENES_AT_ONCE - len(running)):
            running.append((scene, ingest_scene.submit(scene.path, start(scene))))
        if not running:
            return
        scene, future = running.popleft()
        future.wait()
        result = future.result(raise_on_failure=False)
        yield scene, failure(scene, result) if isinstance(result, BaseException) else result


class ScenesFailedError(RuntimeError):
    """Some scenes did not make it into the version that was published without them."""

    def __init__(self, report: BuildReport) -> None:
        named = "; ".join(f"{bad.scene}: {bad.reason}" for bad in report.failures)
        super().__init__(f"{len(report.failures)} scenes failed: {named}")
        self.report = report


@flow(
    name="build dataset",
    flow_run_name="build {config_path}",
    task_runner=ThreadPoolTaskRunner(max_workers=SCENES_AT_ONCE),  # type: ignore[arg-type]  # Prefect's type is invariant
)
def build_flow(config_path: str, overrides: Sequence[str] = ()) -> BuildReport:
    """Build the next version of the dataset that `config_path` describes.

    Raises:
        ScenesFailedError: At the end, naming every scene that failed; the others are published.
    """
    config = configs.load(DatasetConfig, config_path, overrides)
    report = build_dataset(config, None if config.dask else run_as_tasks)
    show_build(config, report)
    if report.failures:
        raise ScenesFailedError(report)
    return report
