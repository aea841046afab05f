"""Build one dataset version from what is new or changed at the source.

One coordinator (`build_dataset`) holds the commit lock, plans, and hands every scene a forked
session. A scene that is finished is checkpointed, so that a build that is killed goes on from
there; at the end one commit publishes all of them. A scene that fails is named and left out whole;
nothing of it reaches a version.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
from icechunk.session import ForkSession
from pydantic import ConfigDict, Field, field_validator

from pipeline import readers
from pipeline.alerts import AlertsConfig
from pipeline.apart import apart
from pipeline.coordinator import Coordinator, Ingested, little_memory
from pipeline.engines import Runner, Work, in_turn, on_dask
from pipeline.plan import Failure, Known, Plan, Task, make_plan, retired
from pipeline.readers.names import scene_id_of_name
from pipeline.recipe import Recipe, apply, load_recipe, recipe_hash, recipe_json, scene_recipe_hash
from pipeline.sensors import SENSORS
from pipeline.sources import Product, find_products, local, look_of
from pipeline.split import SplitConfig, pinned
from pipeline.states import SceneState, States
from storage import store
from storage.index import source_digest
from storage.schema import SceneError, SchemaError

logger = logging.getLogger(__name__)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DatasetConfig:
    """One dataset: where its scenes come from, how they become tiles, where the tiles go."""

    name: str
    source: Annotated[str, Field(pattern=r"^s3://[^@]+$")] | Path
    """Folder of raw products (archives or product folders), or one product; or a bucket's folder
    of archives, `s3://bucket/prefix`."""
    store: str
    """Folder or URL of the tile store."""
    recipe: str
    """A recipe file, or the name of a shipped one (`reference`, `reflectance`)."""
    split: SplitConfig = field(default_factory=SplitConfig)
    schedule: str = "0 2 * * *"
    """When `serve` builds, as a cron line."""
    max_retired: float = 0.5
    """Largest share of the scenes that may vanish from the source between two versions [1]: a disk
    that is not mounted must not empty the dataset."""
    dask: str = field(default_factory=lambda: os.environ.get("DASK_SCHEDULER_ADDRESS", ""))
    """Address of a Dask scheduler, `tcp://host:8786`, whose workers make the tiles; "": here."""
    shards: Path | None = None
    """Where a scheduled run puts the shards of a new version, `<shards>/<version>`; None: none."""
    report: Path | None = None
    """Where it puts the version's dataset card, `<report>/<version>`; None: none."""
    cache: Path | None = None
    """Where archives of a bucket lie while they are worked on; None: the system's own place."""
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    """Whom it tells of failures and quarantine."""

    @field_validator("source", mode="before")
    @classmethod
    def _no_other_url(cls, source: Any) -> Any:
        text = str(source)
        if "://" in text and not re.fullmatch(r"s3://[^@]+", text):
            raise ValueError("must be a folder, a product, or s3://bucket/prefix without keys")
        return source


@dataclass(frozen=True)
class BuildReport:
    """What a build did; `version` is None when there was nothing to change."""

    version: str | None
    added: tuple[str, ...]
    """Scenes that are new or were made again."""
    tiles: int
    """Of the added scenes."""
    failures: tuple[Failure, ...]
    retired: tuple[str, ...] = ()
    """Scenes whose product is gone, or that another recipe made and today's cannot."""
    quarantined: tuple[Failure, ...] = ()
    """Products that failed too often and were left alone."""

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(asdict(self))

    def to_markdown(self) -> str:
        """Return the report as a few lines for a person."""
        lines = [
            f"**{self.version}**: {len(self.added)} scenes added, {self.tiles} tiles"
            if self.version
            else "no new version: nothing to add"
        ]
        lines += [f"- retired: {name}" for name in self.retired]
        lines += [f"- failed: {bad.scene}: {bad.reason}" for bad in self.failures]
        lines += [f"- in quarantine: {bad.scene}: {bad.reason}" for bad in self.quarantined]
        return "\n".join(lines)


def build_dataset(
    config: DatasetConfig, run: Runner | None = None, *, only_failed: bool = False
) -> BuildReport:
    """Make the next version: add what is new, renew what changed, retire what is gone.

    Goes on from where a build was cut off. Without a change there is no version.

    Args:
        config: The dataset.
        run: Runs the work on all scenes and yields their outcomes; None: one after the other, or
            on Dask where the config names a scheduler.
        only_failed: Take only products that failed or are in quarantine; retire none.

    Returns:
        What was added and retired, and every scene that failed with its reason.

    Raises:
        storage.schema.SchemaError: The store holds another dataset; too much has vanished; or
            `only_failed` and the recipe is another than the head's.
        FileNotFoundError: There is nothing at the source, or no land mask where the config says so.
        ValueError: The land mask is none.
        TimeoutError: Another build holds the store.
    """
    recipe = load_recipe(config.recipe)
    count = len(find_products(config.source, config.cache))  # a wrong path leaves no store behind
    split = pinned(config.split)  # and so must a wrong land mask
    with store.commit_lock(config.store) as lock:
        text, digest = recipe_json(recipe, split), recipe_hash(recipe, split)
        repo = store.create(
            config.store, dataset=config.name, recipe=text, recipe_hash=digest, scenes=count
        )
        session = store.begin(repo)
        recipes = frozenset(scene_recipe_hash(recipe, split, name) for name in SENSORS)
        staged = store.staged(repo)
        # Finished by a recipe that is no more: what the head has of these scenes stands.
        outdated = any(attrs["recipe_hash"] not in recipes for attrs in staged.values())
        staged = {} if outdated else staged
        known = Known(store.scenes(repo), staged, digest, recipes)
        states = States(config.store)
        products = find_products(config.source, config.cache)
        plan = make_plan(products, known, states, only_failed=only_failed)
        _check_stale(config, plan, only_failed=only_failed)
        gone = set() if only_failed else retired(plan, known)
        _check_retired(config, gone, known)
        if outdated:  # not before all refusals: it may be wanted again
            store.drop_work(repo)
            session = store.begin(repo)
        # Of a product that went after its scene was finished; `retry` leaves that as it is.
        undone = set() if only_failed else set(known.staged) - set(plan.present) - plan.kept
        coordinator = Coordinator(
            repo, lock, states, store.Recipe(text, digest), len(plan.tasks)
        )  # fmt: skip

        def start(task: Task) -> Work:
            coordinator.start(task)
            work = partial(ingest, recipe=recipe, split=split, fork=session.fork())
            # A worker of Dask is a process of its own anyway.
            return partial(apart, work) if task.cut_off and not config.dask else work

        runner = run or (on_dask(config.dask) if config.dask else in_turn)
        with nullcontext() if runner is in_turn else little_memory():
            try:
                for task, outcome in runner(plan.tasks, start):
                    coordinator.take(task, outcome)
            except BaseException:
                _keep_finished(coordinator)
                raise
            return _publish(config, coordinator, plan, known, gone | undone)


def _keep_finished(coordinator: Coordinator) -> None:
    """Checkpoint what is finished when a build is interrupted, whatever interrupted it."""
    try:
        coordinator.checkpoint()
    except Exception as error:  # what interrupted the build is what its user must hear of
        logger.error("the last finished scenes could not be kept: %s", error)


def ingest(product: Product, *, recipe: Recipe, split: SplitConfig, fork: ForkSession) -> Ingested:
    """Turn one raw product into tiles and write them to `fork`.

    Raises:
        storage.schema.SceneError: The product is not what it should be.
        OSError: It cannot be fetched.
    """
    with local(product) as path:
        return _ingest(path, recipe=recipe, split=split, fork=fork)


def _ingest(path: Path, *, recipe: Recipe, split: SplitConfig, fork: ForkSession) -> Ingested:
    scene = readers.open_scene(path)
    scene_id, named = scene.attrs["scene_id"], scene_id_of_name(path)
    if named not in (None, scene_id):
        raise SceneError(
            path,
            expected=f"scene {named}, as its name says",
            got=scene_id,
            todo="give it back the name that it was delivered under",
        )
    tiles = apply(recipe, scene, split).assign_attrs(
        product=path.name, recipe_hash=scene_recipe_hash(recipe, split, scene.attrs["sensor"])
    )
    counts = store.write_scene(fork, tiles)
    readers.verify(scene)
    logger.info("%s: %s", scene_id, _in_words(counts))
    return Ingested(scene_id, counts, fork, source_digest(scene.attrs["sources"]))


def _publish(
    config: DatasetConfig, coordinator: Coordinator, plan: Plan, known: Known, gone: set[str]
) -> BuildReport:
    """Commit what there is as the next version, if anything changed."""
    again = coordinator.kept
    # What another recipe made and today's cannot would be of other bands, or of another split.
    removed = gone | (plan.stale - set(again) - set(known.staged))
    staged = {name: attrs["counts"]["kept"] for name, attrs in known.staged.items()}
    added = {name: kept for name, kept in {**staged, **again}.items() if name not in removed}
    version = None
    if removed & set(known.published):
        coordinator.checkpoint()
        bad = (*plan.failures, *coordinator.failures, *plan.quarantined)
        _check_retired(config, removed, known, bad)
    if added or removed & set(known.published):
        version = coordinator.publish(removed)
    elif removed:
        store.drop_work(coordinator.repo)
    return BuildReport(
        version=version.tag if version else None,
        added=tuple(sorted(added)),
        tiles=sum(added.values()),
        failures=(*plan.failures, *coordinator.failures),
        retired=tuple(sorted(removed & set(known.published))),
        quarantined=tuple(plan.quarantined),
    )


def _check_stale(config: DatasetConfig, plan: Plan, *, only_failed: bool) -> None:
    """Refuse to retry some scenes of a dataset of which others are of another recipe."""
    retried = {task.product for task in plan.tasks}
    others = {name for name in plan.stale if plan.present.get(name) not in retried}
    if only_failed and others:
        raise SchemaError(
            f"{len(others)} scenes of {config.store}, such as {min(others)}, were made by another "
            "recipe: `build` it, not `retry`"
        )


def _check_retired(
    config: DatasetConfig, gone: set[str], known: Known, failures: Sequence[Failure] = ()
) -> None:
    """Refuse to empty a dataset because a disk is not mounted, or all workers fail."""
    lost = gone & set(known.published)
    share = len(lost) / max(len(known.published), 1)
    if share > config.max_retired:
        why = f"; failed: {failures[0].scene}: {failures[0].reason}" if failures else ""
        raise SchemaError(
            f"{config.source} lacks {len(lost)} of the {len(known.published)} scenes of "
            f"{config.store}, or they cannot be made again, such as {min(lost)}{why}; expected at "
            f"most {config.max_retired:.0%} to be gone: mount or mend what is missing; if it is "
            "mended, `retry --failed` takes what is in quarantine, too; or allow their loss with "
            f"max_retired={share:.2f}"
        )


def _in_words(counts: dict[str, Any]) -> str:
    rejected = ", ".join(f"{n} {reason}" for reason, n in counts["rejected"].items() if n)
    return f"{counts['kept']} of {counts['in']} tiles kept" + (f"; {rejected}" if rejected else "")


def scene_states(config: DatasetConfig) -> list[SceneState]:
    """Return where each product at the source stands, in the order of their names; changes nothing.

    A record of a scene that was being worked on counts as new unless a build holds the store. What
    changed since it was done is not looked for: that would read every product.

    Raises:
        FileNotFoundError: There is nothing at the source.
    """
    products = find_products(config.source, config.cache)
    made: dict[str, str] = {}
    if store.exists(config.store):
        repo = store.open_repository(config.store)
        made = {name: entry["product"] for name, entry in store.scenes(repo).items()}
        made |= {name: attrs["product"] for name, attrs in store.staged(repo).items()}
    done = {product: name for name, product in made.items()}
    states, busy = States(config.store), store.is_locked(config.store)
    found = []
    for path in products:
        state = states[path.name]
        if state.state == "running" and not busy:
            state = replace(state, state="new", reason="a build was cut off while it ran")
        if state.state in ("new", "done"):
            # A product that was renamed since is known by its record.
            known = state.scene_id if state.scene_id in made else ""
            scene_id = done.get(path.name, known)
            changed = state.state == "done" and state.look != look_of(path)
            if scene_id and not changed:
                state = replace(state, state="done", scene_id=scene_id, reason="")
            else:
                why = "its file changed" if scene_id else state.reason
                state = replace(state, state="new", reason=why)
        found.append(state)
    return found
