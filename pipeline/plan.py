"""What a build has to do: which products are new or changed, and which scenes are gone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import readers
from pipeline.apart import apart
from pipeline.readers.names import scene_id_of_name
from pipeline.sources import Product, local, look_of
from pipeline.states import CUTS, SceneState, States
from storage.index import source_digest
from storage.schema import SceneError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A scene that did not make it, and why."""

    scene: str
    """Name of the product's file or folder."""
    reason: str
    transient: bool = False
    """It is of a disk or a network, not of the product: never a reason for quarantine."""


@dataclass(frozen=True)
class Task:
    """One product to turn into tiles."""

    path: Product
    reason: str
    """`new`, `source changed` or `recipe changed`."""
    look: tuple[int, int]
    """Bytes and newest change [ns] when it was planned."""
    cut_off: int = 0
    """Builds that were cut off while it was worked on, perhaps by it."""

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
    kept: set[str] = field(default_factory=set)
    """Scenes that a product was made into which can now not be opened: they stay."""
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
    planner = _Planner(plan, known, states, {path.name for path in products}, only_failed)
    for path in products:
        try:
            planner.add(path)
        except (ValueError, OSError) as error:
            logger.error("%s failed: %s", path.name, error)
            # A twin is no fault of the product either.
            transient = is_transient(error) or not isinstance(error, SceneError | OSError)
            plan.failures.append(Failure(path.name, str(error), transient))
            planner.keep(path)
            state = states[path.name].failed(
                str(error), known.recipe, look_of(path), transient=transient
            )
            states.put(state)
    plan.tasks.sort(key=lambda task: task.cut_off)
    return plan


def retired(plan: Plan, known: Known) -> set[str]:
    """Return the scenes of the head that have no product at the source any more."""
    return set(known.published) - set(plan.present) - plan.kept


def is_transient(error: BaseException) -> bool:
    """Return whether an error is of a disk or a network; a process that died is none of these."""
    return isinstance(error, OSError) and not isinstance(error, ChildProcessError)


class _Planner:
    def __init__(
        self, plan: Plan, known: Known, states: States, names: set[str], only_failed: bool
    ) -> None:
        self.plan, self.known, self.states = plan, known, states
        self._names, self._only_failed = names, only_failed
        staged = {scene_id: str(attrs["product"]) for scene_id, attrs in known.staged.items()}
        published = {scene_id: entry["product"] for scene_id, entry in known.published.items()}
        self._product_of = published | staged
        self._scenes_of: dict[str, list[str]] = {}
        for scene_id, product in self._product_of.items():
            self._scenes_of.setdefault(product, []).append(scene_id)

    def add(self, path: Product) -> None:
        """Find out what is to be done with one product."""
        state, look = self.states[path.name], look_of(path)
        unchanged = state.look == look
        cut_off = state.cut_off + (state.state == "running")
        if not self._only_failed and cut_off >= CUTS and state.state == "running":
            reason = f"{cut_off} builds were cut off while it was worked on"
            state = state.seen("quarantined", reason=reason, cut_off=cut_off, look=look,
                               recipe=self.known.recipe)  # fmt: skip
            self.states.put(state)
            unchanged = True
        if state.state == "quarantined" and unchanged and state.recipe == self.known.recipe:
            self.keep(path)
            if not self._only_failed:
                self.plan.quarantined.append(Failure(path.name, state.reason))
                return
        trusted = unchanged and state.state == "done"
        # A name that says nothing costs a look inside, which hashes the whole product.
        named = scene_id_of_name(Path(path.name)) or (state.scene_id if trusted else "")
        scene_id = named or self._attrs(path, cut_off)["scene_id"]
        self._claim(path, scene_id)
        done = self.known.entry(scene_id)
        reason, source = self._compare(path, done, state.source if trusted else "", cut_off)
        if reason:
            if not self._only_failed or state.state in ("failed", "quarantined"):
                self.plan.tasks.append(Task(path, reason, look, cut_off))
        elif state.state != "done" or (state.look, state.source) != (look, source):
            found = SceneState(path.name, scene_id=scene_id, look=look, source=source)
            self.states.put(found.seen("done"))

    def keep(self, path: Product) -> None:
        """Keep the scene that was made of a product which can now not be opened."""
        self.plan.kept.update(self._scenes_of.get(path.name, ()))
        # One that was renamed after its scene was made is known by its record.
        if (scene_id := self.states[path.name].scene_id) in self._product_of:
            self.plan.kept.add(scene_id)

    def _claim(self, path: Product, scene_id: str) -> None:
        """Note whose scene it is: of two products of one scene, that which it was made of."""
        owner = self._product_of.get(scene_id, "")
        record = self.states[owner]
        known = owner in self._names and (record.state, record.scene_id) == ("done", scene_id)
        first = owner if known else self.plan.present.get(scene_id, path.name)
        if first != path.name:
            raise ValueError(
                f"{path.name}: expected a scene of its own, got {scene_id}, which {first} is, too: "
                "take one of the two away"
            )
        self.plan.present[scene_id] = path.name

    def _compare(
        self, path: Product, done: Mapping[str, str] | None, source: str, cut_off: int
    ) -> tuple[str, str]:
        """Return why a scene has to be made, "" if the store has it, and its product's digest."""
        if done is None:
            return "new", ""
        if done["recipe"] not in self.known.recipes:
            return "recipe changed", ""
        source = source or source_digest(self._attrs(path, cut_off)["sources"])
        return "" if source == done["source"] else "source changed", source

    def _attrs(self, path: Product, cut_off: int) -> Mapping[str, Any]:
        """Open a product; should that kill the build, the next one knows where it was."""
        before = replace(self.states[path.name], cut_off=cut_off)
        if before.state == "running":
            before = replace(before, state="new")
        self.states.put(before.seen("running", reason="being opened", cut_off=cut_off))
        try:
            attrs = apart(_attrs, path) if cut_off else _attrs(path)
        finally:
            self.states.put(before)
        return attrs


def _attrs(path: Product) -> Mapping[str, Any]:
    with local(path) as file:
        return dict(readers.open_scene(file).attrs)
