"""Build one dataset version from all scenes not yet in the store.

One coordinator (`build_dataset`) holds the commit lock, hands every scene a forked session, merges
the forks of the scenes that succeeded and commits once. A scene that fails is named and left out
whole; nothing of it reaches a version.
"""

import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pydantic.dataclasses
from icechunk.session import ForkSession
from pydantic import ConfigDict

from pipeline import readers
from pipeline.readers.names import scene_id_of_name
from pipeline.recipe import Recipe, apply, load_recipe, recipe_hash, recipe_json
from pipeline.split import SplitConfig
from storage import store
from storage.schema import SceneError

logger = logging.getLogger(__name__)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DatasetConfig:
    """One dataset: where its scenes come from, how they become tiles, where the tiles go."""

    name: str
    source: Path
    """Folder of raw products (archives or product folders), or one product."""
    store: str
    """Folder or URL of the tile store."""
    recipe: str
    """A recipe file, or the name of a shipped one (`reference`, `reflectance`)."""
    split: SplitConfig = field(default_factory=SplitConfig)
    schedule: str = "0 2 * * *"
    """When `serve` builds, as a cron line."""


@dataclass(frozen=True)
class Ingested:
    """A scene's tiles, written to a fork that is not yet part of any version."""

    scene_id: str
    counts: dict[str, Any]
    fork: ForkSession


@dataclass(frozen=True)
class Failure:
    """A scene that did not make it, and why."""

    scene: str
    reason: str


@dataclass(frozen=True)
class BuildReport:
    """What a build did; `version` is None when there was nothing to add."""

    version: str | None
    added: tuple[str, ...]
    tiles: int
    failures: tuple[Failure, ...]

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(asdict(self))

    def to_markdown(self) -> str:
        """Return the report as a few lines for a person."""
        head = (
            f"**{self.version}**: {len(self.added)} scenes added, {self.tiles} tiles"
            if self.version
            else "no new version: nothing to add"
        )
        return "\n".join([head, *(f"- failed: {bad.scene}: {bad.reason}" for bad in self.failures)])


Work = Callable[[Path], Ingested]
Runner = Callable[[Sequence[Path], Callable[[], Work]], Iterable[Ingested | Failure]]


def build_dataset(config: DatasetConfig, run: Runner | None = None) -> BuildReport:
    """Add every scene of `config.source` that is not in the store, as one new version.

    Args:
        config: The dataset.
        run: Runs the work on all scenes and yields their outcomes; None: one after the other.

    Returns:
        What was added, and every scene that failed with its reason.

    Raises:
        storage.schema.SchemaError: The store holds another dataset or recipe.
        FileNotFoundError: There is nothing at the source.
    """
    recipe = load_recipe(config.recipe)
    readers.find_scenes(config.source)  # a wrong path must leave no store behind
    with store.commit_lock(config.store):
        repo = store.create(
            config.store,
            dataset=config.name,
            recipe=recipe_json(recipe, config.split),
            recipe_hash=recipe_hash(recipe, config.split),
        )
        scenes, unreadable = new_scenes(config.source, store.scene_ids(repo))
        session = store.begin(repo)

        def fresh_work() -> Work:
            return partial(ingest, recipe=recipe, split=config.split, fork=session.fork())

        outcomes = [*unreadable, *(run or run_in_turn)(scenes, fresh_work)]
        done = [outcome for outcome in outcomes if isinstance(outcome, Ingested)]
        failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failure))
        if not done:
            return BuildReport(None, (), 0, failures)
        version = store.commit_version(
            repo,
            session,
            [scene.fork for scene in done],
            code_version=importlib.metadata.version("hypersigma-pipeline"),
        )
    tiles = sum(scene.counts["kept"] for scene in done)
    return BuildReport(version.tag, tuple(sorted(s.scene_id for s in done)), tiles, failures)


def new_scenes(source: Path, stored: set[str]) -> tuple[list[Path], list[Failure]]:
    """Return the products in `source` whose scene is not stored, and those that cannot be named.

    Two products of one scene id are not both taken: the second is a failure that names the first.
    """
    new: dict[str, Path] = {}
    failures = []
    for path in readers.find_scenes(source):
        try:
            # A name that says nothing costs a look inside, which hashes the whole product.
            scene_id = scene_id_of_name(path) or readers.open_scene(path).attrs["scene_id"]
        except (ValueError, OSError) as error:
            failures.append(failure(path, error))
            continue
        if scene_id in new:
            failures.append(Failure(path.name, f"scene {scene_id} is also {new[scene_id].name}"))
        elif scene_id not in stored:
            new[scene_id] = path
    return list(new.values()), failures


def ingest(path: Path, *, recipe: Recipe, split: SplitConfig, fork: ForkSession) -> Ingested:
    """Turn one raw product into tiles and write them to `fork`.

    Raises:
        storage.schema.SceneError: The product is not what it should be.
    """
    scene = readers.open_scene(path)
    scene_id, named = scene.attrs["scene_id"], scene_id_of_name(path)
    if named not in (None, scene_id):
        raise SceneError(
            path,
            expected=f"scene {named}, as its name says",
            got=scene_id,
            todo="give it back the name that it was delivered under",
        )
    tiles = apply(recipe, scene, split)
    counts = store.write_scene(fork, tiles)
    readers.verify(scene)
    logger.info("%s: %s", scene_id, _in_words(counts))
    return Ingested(scene_id, counts, fork)


def run_in_turn(scenes: Sequence[Path], work: Callable[[], Work]) -> Iterator[Ingested | Failure]:
    """Work on one scene after the other; Dask uses the cores inside each."""
    for number, path in enumerate(scenes, 1):
        logger.info("scene %d of %d: %s", number, len(scenes), path.name)
        try:
            yield work()(path)
        except Exception as error:  # a scene is a unit of failure: name it, go on with the others
            yield failure(path, error)


def failure(path: Path, error: BaseException) -> Failure:
    """Return `error` as the failure of a scene; the log has the traceback of an unexpected one."""
    expected = isinstance(error, ValueError | OSError)
    logger.error("%s failed: %s", path.name, error, exc_info=None if expected else error)
    return Failure(path.name, str(error) if expected else f"{type(error).__name__}: {error}")


def _in_words(counts: dict[str, Any]) -> str:
    rejected = ", ".join(f"{n} {reason}" for reason, n in counts["rejected"].items() if n)
    return f"{counts['kept']} of {counts['in']} tiles kept" + (f"; {rejected}" if rejected else "")
