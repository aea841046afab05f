"""What a build has to do: which products are new or changed, and which scenes are gone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import readers
from pipeline.readers.names import scene_id_of_name
from pipeline.sources import Product, local, look_of
from pipeline.states import SceneState, States
from storage.index import source_digest
from storage.schema import SceneError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A scene that did not make it, and why."""

    scene: str
    """Name of the product's file or folder."""
    reason: str


@dataclass(frozen=True)
class Task:
    """One product to turn into tiles."""

    path: Product
    reason: str
    """`new`, `source changed` or `recipe changed`."""
    look: tuple[int, int]
    """Bytes and newest change [ns] when it was planned."""
    apart: bool = False
    """An earlier build was cut off while it was worked on, perhaps by it."""

    @property
    def product(self) -> str:
        """Name of the product's file or folder."""
        return self.path.name


@dataclass
class Plan:
    """What one build does with the products at the source."""

    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """What cannot be told apart or opened at all."""
    quarantined: list[Failure] = field(default_factory=list)
    """Left alone: they failed too often."""
    present: dict[str, str] = field(default_factory=dict)
    """Scene ids that have a product at the source: its name."""
    stale: set[str] = field(default_factory=set)
    """Scenes of the head that another recipe made."""


@dataclass(frozen=True)
class Known:
    """What a store has already."""

    published: Mapping[str, Mapping[str, str]]
    """By scene id, the head's entry (see `storage.index.scene_table`)."""
    staged: Mapping[str, Mapping[str, Any]]
    """By scene id, attrs of what an unfinished build has done."""
    recipe: str
    """Hash of today's recipe."""
    recipes: frozenset[str]
    """Hashes that a scene made by today's recipe can have, one a sensor."""

    def entry(self, scene_id: str) -> Mapping[str, str] | None:
        """Return recipe and source of a scene that is published or, later, finished."""
        if (attrs := self.staged.get(scene_id)) is not None:
            return {"recipe": attrs["recipe_hash"], "source": source_digest(attrs["sources"])}
        return self.published.get(scene_id)


def make_plan(
    products: Sequence[Product], known: Known, states: States, *, only_failed: bool = False
) -> Plan:
    """Look at every product at the source; open only those whose name or record says too little.

    What may have killed a build comes last.

    Args:
        products: What there is at the source (see `sources.find_products`).
        known: What the store has.
        states: Records of earlier builds; a scene that is found done gets its record.
        only_failed: Take only what failed or is in quarantine.
    """
    plan = Plan()
    plan.stale = {n for n, e in known.published.items() if e["recipe"] not in known.recipes}
    for path in products:
        try:
            _plan_one(path, plan, known, states, only_failed=only_failed)
        except (ValueError, OSError) as error:
            logger.error("%s failed: %s", path.name, error)
            plan.failures.append(Failure(path.name, str(error)))
            _keep_known(path, plan, known, states)
            if isinstance(error, SceneError | OSError):  # a twin is no fault of the product
                state = states[path.name].failed(str(error), known.recipe, look_of(path))
                states.put(state)
    plan.tasks.sort(key=lambda task: task.apart)
    return plan


def retired(plan: Plan, known: Known) -> set[str]:
    """Return the scenes of the head that have no product at the source any more."""
    return set(known.published) - set(plan.present)


def _plan_one(
    path: Product, plan: Plan, known: Known, states: States, *, only_failed: bool
) -> None:
    state, look = states[path.name], look_of(path)
    unchanged = state.look == look
    scene_id = scene_id_of_name(Path(path.name)) or (state.scene_id if unchanged else "")
    if state.state == "quarantined" and unchanged and state.recipe == known.recipe:
        plan.present |= {scene_id: path.name} if scene_id else {}
        _keep_known(path, plan, known, states)
        if not only_failed:
            plan.quarantined.append(Failure(path.name, state.reason))
            return
    # A name that says nothing costs a look inside, which hashes the whole product.
    scene_id = scene_id or _attrs(path)["scene_id"]
    if scene_id in plan.present and plan.present[scene_id] != path.name:
        raise ValueError(f"scene {scene_id} is also {plan.present[scene_id]}")
    plan.present[scene_id] = path.name
    reason, source = _compare(path, state, known.entry(scene_id), known, unchanged=unchanged)
    if reason:
        if not only_failed or state.state in ("failed", "quarantined"):
            apart = state.apart or state.state == "running"
            plan.tasks.append(Task(path, reason, look, apart))
    elif state.state != "done" or (state.look, state.source) != (look, source):
        done = SceneState(path.name, scene_id=scene_id, look=look, source=source)
        states.put(done.seen("done"))


def _compare(
    path: Product,
    state: SceneState,
    done: Mapping[str, str] | None,
    known: Known,
    *,
    unchanged: bool,
) -> tuple[str, str]:
    """Return why a scene has to be made, "" if the store has it, and its product's digest."""
    if done is None:
        return "new", ""
    if done["recipe"] not in known.recipes:
        return "recipe changed", ""
    source = state.source if unchanged else ""
    source = source or source_digest(_attrs(path)["sources"])
    return "" if source == done["source"] else "source changed", source


def _attrs(path: Product) -> Mapping[str, Any]:
    with local(path) as file:
        return dict(readers.open_scene(file).attrs)


def _keep_known(path: Product, plan: Plan, known: Known, states: States) -> None:
    """Keep the scene that was made of a product which can now not be opened."""
    for scene_id, entry in known.published.items():
        # One that was renamed after its scene was made is known by its record.
        if entry["product"] == path.name or states[path.name].scene_id == scene_id:
            plan.present.setdefault(scene_id, path.name)
