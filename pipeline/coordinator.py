"""Outcomes of scenes in, checkpoints and one version out: the only writer of a store's branches."""

import ctypes
import importlib.metadata
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from icechunk import Repository
from icechunk.session import ForkSession

from pipeline.plan import Failure, Task
from pipeline.states import SceneState, States
from storage import store
from storage.lock import Held

_SHARE = 0.05
"""Most of a build's time that checkpoints may take: commits grow with the number of scenes."""
_PENDING = 16
"""Most scenes that wait for one."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt."""


@dataclass(frozen=True)
class Ingested:
    """A scene's tiles, written to a fork that is not yet part of any version."""

    scene_id: str
    counts: dict[str, Any]
    fork: ForkSession
    source: str
    """Digest of what it was read from."""


@dataclass
class Coordinator:
    """What came of a build so far. Holds forks until their checkpoint, never pixels."""

    repo: Repository
    lock: Held
    states: States
    recipe: store.Recipe
    tasks: int
    """How many outcomes will come."""
    kept: dict[str, int] = field(default_factory=dict)
    """Tiles of each scene that was finished."""
    failures: list[Failure] = field(default_factory=list)
    _pending: list[tuple[Task, Ingested]] = field(default_factory=list)
    _outcomes: int = 0
    _not_before: float = 0.0

    def start(self, task: Task) -> None:
        """Record that a scene is being worked on."""
        state = self.states[task.product]
        self.states.put(state.seen("running", reason=task.reason, cut_off=task.cut_off))

    def take(self, task: Task, outcome: Ingested | Failure) -> None:
        """Take what came of a task; keep finished scenes for good as soon as that is cheap.

        Raises:
            LockLostError: Another build may have taken over.
            icechunk.ConflictError: It has.
        """
        self._outcomes += 1
        if isinstance(outcome, Ingested) and outcome.scene_id in self.kept:
            outcome = Failure(task.product, f"another product is {outcome.scene_id}, too")
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            state = self.states[task.product]
            self.states.put(
                state.failed(
                    outcome.reason, self.recipe.hash, task.look, transient=outcome.transient
                )
            )
            return
        self.kept[outcome.scene_id] = outcome.counts["kept"]
        self._pending.append((task, outcome))
        due = time.monotonic() >= self._not_before or len(self._pending) >= _PENDING
        # The last ones are kept by the version itself.
        if due and self._outcomes < self.tasks:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Keep the finished scenes, so that they outlast this build."""
        if not self._pending:
            return
        began = time.monotonic()
        self.lock.check()
        store.checkpoint(self.repo, self._forks())
        self._done()
        _trim()
        ended = time.monotonic()
        self._not_before = ended + (ended - began) * (1 / _SHARE - 1)

    def publish(self, removed: Collection[str]) -> store.Version:
        """Make the next version of all that was finished, without `removed` scenes."""
        self.lock.check()
        version = store.commit_version(
            self.repo,
            self._forks(),
            removed=removed,
            recipe=self.recipe,
            code_version=importlib.metadata.version("hypersigma-pipeline"),
        )
        self._done()
        return version

    def _forks(self) -> dict[str, ForkSession]:
        return {done.scene_id: done.fork for _, done in self._pending}

    def _done(self) -> None:
        for task, done in self._pending:
            state = SceneState(
                task.product, scene_id=done.scene_id, look=task.look, source=done.source
            )
            self.states.put(state.seen("done"))
        self._pending.clear()


@contextmanager
def little_memory() -> Iterator[None]:
    """Let blocks of 4 MiB and more go back to the system as soon as they are free.

    A commit's lists of all nodes grow in many steps, and glibc would keep each. For a process that
    makes no pixels: those take a fifth more of its time so. Afterwards the bounds are those that
    glibc comes to by itself.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, 4 * 2**20)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_TRIM_THRESHOLD, 64 * 2**20)


def _trim() -> None:
    """Give freed memory back to the system: glibc keeps it for each thread that had it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
