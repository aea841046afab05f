"""Where each product at the source stands: new, running, done, failed, quarantined.

The records lie beside the store, in `<store>.scenes/`, written by the coordinator alone. They say
what the store cannot: what failed and why, what is being worked on, and how a product's file looked
when it was last read, so that it need not be hashed again. That a scene is done, the store says.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from storage.location import Location
from storage.records import Records

type State = Literal["new", "running", "done", "failed", "quarantined"]
STATES: tuple[State, ...] = ("new", "running", "done", "failed", "quarantined")
ATTEMPTS = 3
"""A product that failed so often, unchanged and by one recipe, is put in quarantine."""
CUTS = 10
"""So is one that so many builds were cut off at: no machine goes down ten times at one product."""


@dataclass(frozen=True)
class SceneState:
    """One product at the source."""

    product: str
    """Name of its file or folder."""
    state: State = "new"
    scene_id: str = ""
    """"" while nobody has looked inside and the name does not say."""
    reason: str = ""
    """Why it failed; or why a scene that was done is to be done again."""
    attempts: int = 0
    """Failed ones in a row, of these bytes by this recipe."""
    look: tuple[int, int] = (0, 0)
    """Bytes and newest change [ns] when it was last read: as long as they stay, so do its bytes."""
    source: str = ""
    """Digest of those bytes; of a scene that is done alone (see `storage.index.source_digest`)."""
    recipe: str = ""
    """Hash of the recipe that it failed by."""
    cut_off: int = 0
    """Builds that were cut off while it was worked on: after the first, until it is done, it is
    worked on in a process of its own."""
    at: str = ""
    """When it came to this state, UTC."""

    def seen(self, state: State, **changes: Any) -> "SceneState":
        """Return it in another state, from now on."""
        return replace(self, state=state, at=datetime.now(UTC).isoformat(timespec="seconds"),
                       **changes)  # fmt: skip

    def failed(
        self, reason: str, recipe: str, look: tuple[int, int], *, transient: bool = False
    ) -> "SceneState":
        """Return it after one more failure; the last of `ATTEMPTS` puts it in quarantine.

        A transient one, of a disk or a network, does not count. Its bytes are those of no scene.
        """
        same = (self.recipe, self.look) == (recipe, look)
        attempts = (self.attempts if same else 0) + (not transient)
        state: State = "quarantined" if attempts >= ATTEMPTS else "failed"
        return self.seen(
            state, reason=reason, attempts=attempts, recipe=recipe, look=look, source=""
        )


class States:
    """The records of one store, read once and written through.

    Args:
        location: The store.
    """

    def __init__(self, location: Location) -> None:
        self._records = Records(location, "scenes")
        self._states = {name: _state(name, record) for name, record in self._records.load().items()}

    def __getitem__(self, product: str) -> SceneState:
        return self._states.get(product, SceneState(product))

    def put(self, state: SceneState) -> None:
        """Write one."""
        self._states[state.product] = state
        self._records.put(state.product, asdict(state))


def look_of(path: Path) -> tuple[int, int]:
    """Return bytes and newest change [ns] of a product: a file, or all of a folder's files."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _state(product: str, record: Mapping[str, Any]) -> SceneState:
    known = {name: record[name] for name in SceneState.__dataclass_fields__ if name in record}
    if known.get("state") not in STATES:
        return SceneState(product)
    return SceneState(**{**known, "product": product, "look": tuple(known.get("look", (0, 0)))})
