"""Which sample comes when: one order for all ranks and workers, of the seed and the epoch alone.

An epoch is a list of draws (source, row). Position `p` of it goes to rank `p % world`; nothing else
depends on how many ranks or workers there are. NumPy alone.
"""

import zlib
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import Literal

import numpy as np

from storage.schema import SchemaError

type Order = Literal["global", "shard"]
type Ends = Literal["drop", "pad"]

_MIX, _SHARD = 2, 3
"""What a stream of random words is for; 1 is the windows' own (see `storage.stream`)."""


@dataclass(frozen=True)
class Source:
    """Some rows of one set of shards."""

    rows: np.ndarray
    """Index rows (sample), int64."""
    shard: np.ndarray
    """Number of each row's shard (sample)."""


@dataclass(frozen=True)
class Draws:
    """An epoch."""

    source: np.ndarray
    """Number of the set (draw)."""
    row: np.ndarray
    """Index row in it (draw), int64."""
    epoch: np.ndarray
    """Whole passes over the set that came before (draw): with weights, sets have epochs of their
    own."""


@dataclass(frozen=True)
class Sequence:
    """The epochs of one or several sources.

    Without weights an epoch gives every row of every source once. With weights it has as many draws
    as there are rows, shared out by the weights; each source goes on from epoch to epoch where it
    was, and begins again when it has given every row.

    Args:
        sources: At least one.
        seed: Of all orders.
        order: `global`: any row may follow any other. `shard`: the shards in a random order,
            `window` of them at a time, and their rows mixed: for disks and file systems that read
            neighbours faster.
        window: Shards that are mixed.
        weights: Of each source, positive; None: each by its number of rows.

    Raises:
        SchemaError: A source has no row, or weights that do not fit.
    """

    sources: Listed[Source]
    seed: int
    order: Order = "global"
    window: int = 16
    weights: Listed[float] | None = None

    def __post_init__(self) -> None:
        if not self.sources or not all(len(source.rows) for source in self.sources):
            raise SchemaError("each set of shards must give at least one tile, got none")
        if self.order not in ("global", "shard") or self.window < 1:
            raise SchemaError(f"order must be global or shard, got {self.order}, {self.window=}")
        weights = self.weights
        if weights is not None and (len(weights) != len(self.sources) or min(weights) <= 0):
            raise SchemaError(
                f"weights must be {len(self.sources)} positive numbers, one a set, got {weights}"
            )

    @property
    def length(self) -> int:
        """Draws in an epoch."""
        return sum(self._counts())

    def draws(self, epoch: int) -> Draws:
        """Return an epoch, counted from 0."""
        counts = self._counts()
        which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        if len(counts) > 1:
            which = which[_permutation(len(which), [self.seed, epoch, _MIX])]
        row, passes = np.empty(len(which), np.int64), np.empty(len(which), np.int64)
        for number, count in enumerate(counts):
            mine = which == number if len(counts) > 1 else slice(None)
            row[mine], passes[mine] = self._pass(number, epoch * count, count)
        return Draws(which, row, passes)

    def _counts(self) -> list[int]:
        """Return each source's draws in an epoch."""
        lengths = [len(source.rows) for source in self.sources]
        if self.weights is None:
            return lengths
        wanted = np.array(self.weights, np.float64) / sum(self.weights) * sum(lengths)
        counts = np.maximum(np.floor(wanted), 1).astype(np.int64)
        missing = sum(lengths) - int(counts.sum())
        largest = np.argsort(-(wanted - counts), kind="stable")[: max(missing, 0)]
        counts[largest] += 1
        found: list[int] = counts.tolist()
        return found

    def _pass(self, number: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `count` draws of a source from its draw number `first` on, and their passes."""
        source = self.sources[number]
        passes, place = np.divmod(np.arange(first, first + count), len(source.rows))
        row = np.empty(count, np.int64)
        for own in np.unique(passes).tolist():
            here = passes == own
            row[here] = source.rows[self._own_order(source, number, own)[place[here]]]
        return row, passes

    def _own_order(self, source: Source, number: int, epoch: int) -> np.ndarray:
        entropy = [self.seed, epoch] if number == 0 else [self.seed, epoch, 0, number]
        if self.order == "global":
            return _permutation(len(source.rows), entropy)
        shards, code = np.unique(source.shard, return_inverse=True)
        rank = np.empty(len(shards), np.int64)
        rank[_permutation(len(shards), [*entropy, _SHARD])] = np.arange(len(shards))
        words = _words(len(source.rows), [*entropy, _SHARD, 1])
        return np.lexsort((words, rank[code] // self.window))


@dataclass(frozen=True)
class Steps:
    """How an epoch is cut into steps of equally many samples on every rank.

    Args:
        length: Draws in an epoch.
        batch_size: Samples of one rank in a step.
        world: Number of ranks.
        ends: Of an epoch whose length is no multiple of a step: `drop` leaves its end out; `pad`
            completes it with draws from its begin, which are marked.
    """

    length: int
    batch_size: int
    world: int = 1
    ends: Ends = "drop"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.world < 1 or self.ends not in ("drop", "pad"):
            raise ValueError(
                f"expected batch_size and world from 1 and ends drop or pad, got {self}"
            )
        if self.ends == "drop" and self.length < self.size:
            raise SchemaError(
                f"an epoch must have at least batch_size x world = {self.size} tiles, "
                f"got {self.length}; take a smaller batch_size, or ends='pad'"
            )

    @property
    def size(self) -> int:
        """Samples of one step over all ranks."""
        return self.batch_size * self.world

    def left(self, position: int) -> int:
        """Return the steps from a position to the epoch's end."""
        rest = max(self.length - position, 0)
        return rest // self.size if self.ends == "drop" else -(-rest // self.size)

    def start(self, epoch: int, position: int) -> tuple[int, int]:
        """Return where the step that comes next begins: here, or with the next epoch."""
        return (epoch, position) if self.left(position) else (epoch + 1, 0)

    def places(self, position: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the draws of a rank's next step, and which of them are padding (sample)."""
        places = np.arange(position + rank, position + self.size, self.world)
        return places % self.length, places >= self.length


def packed(rows: np.ndarray) -> bytes:
    """Return rows (int64) in few bytes if they ascend, as those of a selection do."""
    steps = np.diff(rows, prepend=0).astype("<i8", copy=False)
    # The high bytes of small steps are all alike, and together soon packed.
    return zlib.compress(steps.view(np.uint8).reshape(-1, 8).T.tobytes(), level=1)


def unpacked(data: bytes) -> np.ndarray:
    """Return the rows that were packed."""
    planes = np.frombuffer(zlib.decompress(data), np.uint8).reshape(8, -1)
    return np.cumsum(np.ascontiguousarray(planes.T).view("<i8").ravel())


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of `count` samples in an epoch, the same on every machine.

    Sorts the raw words of a bit generator, which NumPy keeps the same in all its versions; the
    methods of its `Generator` are free to change.
    """
    return _permutation(count, [seed, epoch])


def _permutation(count: int, entropy: list[int]) -> np.ndarray:
    return np.argsort(_words(count, entropy), kind="stable")


def _words(count: int, entropy: list[int]) -> np.ndarray:
    return np.random.Philox(np.random.SeedSequence(entropy)).random_raw(count)
