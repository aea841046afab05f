"""Which labelled pixels train, which validate and which are measured on; by ground, with a seed.

The default is disjoint: the image is cut into blocks like a chessboard, training pixels lie inside
the black ones, at least `guard` pixels from their edges, and the white ones are measured on.
Neighbours are near copies, so that pixels drawn at random from everywhere flatter every method.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

type Mask = NDArray[np.bool_]

TRIES = 200
"""Places of the chessboard that are tried until each class has its pixels."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SplitConfig:
    """How labelled pixels are shared out."""

    n_per_class: PositiveInt | None = 10
    """Training pixels of each class; null: `ratio` says."""
    ratio: float | None = Field(default=None, gt=0, lt=1)
    """Training pixels of each class, as a share of its pixels, at least one."""
    val: NonNegativeFloat = 0.0
    """Validation pixels for each training pixel, drawn beside them."""
    disjoint: bool = True
    """Training and measured pixels lie in blocks of their own."""
    block: PositiveInt = 21
    """Side of a block [pixel]."""
    guard: NonNegativeInt = 4
    """From training pixels to the edge of their block, at least [pixel]."""
    seed: int = Field(default=0, ge=0)
    file: Path | None = None
    """A split that a run saved, taken as it is: all above does not count then."""

    def __post_init__(self) -> None:
        """See that the numbers fit each other.

        Raises:
            ValueError: They do not.
        """
        if (self.n_per_class is None) == (self.ratio is None):
            raise ValueError(
                f"expected n_per_class or ratio, one of them, got {self.n_per_class} and "
                f"{self.ratio}; say n_per_class: null beside ratio"
            )
        if self.disjoint and 2 * self.guard >= self.block:
            raise ValueError(
                f"expected blocks of more than twice the guard, got block {self.block} and guard "
                f"{self.guard}"
            )


@dataclass(frozen=True)
class Split:
    """Where pixels train, validate and are measured on; nowhere two of them."""

    train_HW: Mask
    val_HW: Mask
    test_HW: Mask


def draw_split(labels_HW: NDArray[np.integer[Any]], config: SplitConfig) -> Split:
    """Share the labelled pixels out, or take the split of a file.

    Args:
        labels_HW: Classes 1..K; 0 is not labelled.
        config: How.

    Raises:
        ValueError: No or one class only, or a class has too few pixels; says wanted and found. Or
            a split of a file that does not fit the labels.
    """
    classes = np.unique(labels_HW[labels_HW > 0])
    if len(classes) < 2:
        raise ValueError(
            f"expected labels of two classes or more, got {classes.tolist()} in "
            f"{int((labels_HW > 0).sum())} labelled pixels of {labels_HW.size}"
        )
    if config.file is not None:
        return _given(config.file, labels_HW)
    wanted = {int(k): _wanted(int((labels_HW == k).sum()), config) for k in classes}
    rng = np.random.default_rng([config.seed, 11])
    best, least = None, np.inf
    for _ in range(TRIES if config.disjoint else 1):
        ground_HW, test_HW = _chessboard(labels_HW.shape, config, rng)
        found = {k: int((ground_HW & (labels_HW == k)).sum()) for k in wanted}
        measured = {k: int((test_HW & (labels_HW == k)).sum()) for k in wanted}
        # Without a chessboard the same pixels are shared out: one must be left to measure on.
        spare = dict.fromkeys(wanted, 0 if config.disjoint else 1)
        short = {
            k: (sum(wanted[k]), found[k]) for k in wanted
            if found[k] < sum(wanted[k]) + spare[k] or not measured[k]
        }  # fmt: skip
        lacking = sum(max(1, need - there) for need, there in short.values())
        if lacking < least:
            best, least = (ground_HW, test_HW, short), lacking
        if not short:
            break
    assert best is not None  # noqa: S101
    ground_HW, test_HW, short = best
    if short:
        raise ValueError(_too_few(short, config))
    return _drawn(labels_HW, ground_HW, test_HW, wanted, rng)


def save_split(split: Split, path: Path) -> None:
    """Write a split as `.npz`."""
    with path.open("wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(split))


def load_split(path: Path, sides: tuple[int, ...] | None = None) -> Split:
    """Read a split.

    Args:
        path: What `save_split` wrote.
        sides: Of the image that it is to be of; None: any.

    Raises:
        OSError: There is no such file.
        ValueError: It is one of an image of other sides, or none.
    """
    names = [field.name for field in dataclasses.fields(Split)]
    with np.load(path, allow_pickle=False) as file:
        if missing := [name for name in names if name not in file.files]:
            raise ValueError(f"{path}: expected a split with {names}, found no {missing}")
        split = Split(**{name: file[name].astype(bool) for name in names})
    if sides is not None and split.train_HW.shape != sides:
        raise ValueError(
            f"{path}: expected a split of the image's {sides} pixels, got {split.train_HW.shape}"
        )
    return split


def _given(path: Path, labels_HW: NDArray[np.integer[Any]]) -> Split:
    split = load_split(path, labels_HW.shape)
    bare = (split.train_HW | split.val_HW | split.test_HW) & (labels_HW == 0)
    if bare.any():
        raise ValueError(
            f"{path}: expected labels in all its pixels, got none in {int(bare.sum())}; it is a "
            "split of other labels"
        )
    return split


def _wanted(count: int, config: SplitConfig) -> tuple[int, int]:
    """Return how many pixels of a class train and validate."""
    share = config.ratio or 0.0
    train = config.n_per_class if config.n_per_class is not None else max(1, round(share * count))
    return train, round(config.val * train)


def _chessboard(
    shape: tuple[int, ...], config: SplitConfig, rng: np.random.Generator
) -> tuple[Mask, Mask]:
    """Return where may be trained, and where measured."""
    if not config.disjoint:
        everywhere = np.ones(shape, bool)
        return everywhere, everywhere
    row, column = (
        index + shift
        for index, shift in zip(np.indices(shape), rng.integers(2 * config.block, size=2),
                                strict=True)
    )  # fmt: skip
    black_HW = (row // config.block + column // config.block) % 2 == 0
    inside_HW = np.ones(shape, bool)
    for place in (row % config.block, column % config.block):
        inside_HW &= (place >= config.guard) & (place < config.block - config.guard)
    return black_HW & inside_HW, ~black_HW


def _drawn(
    labels_HW: NDArray[np.integer[Any]],
    ground_HW: Mask,
    test_HW: Mask,
    wanted: dict[int, tuple[int, int]],
    rng: np.random.Generator,
) -> Split:
    train, val = (np.zeros(labels_HW.size, bool) for _ in range(2))
    for number, (trained, validated) in wanted.items():
        places = rng.permutation(np.flatnonzero(ground_HW & (labels_HW == number)))
        train[places[:trained]] = True
        val[places[trained : trained + validated]] = True
    train_HW, val_HW = train.reshape(labels_HW.shape), val.reshape(labels_HW.shape)
    return Split(train_HW, val_HW, test_HW & (labels_HW > 0) & ~train_HW & ~val_HW)


def _too_few(short: dict[int, tuple[int, int]], config: SplitConfig) -> str:
    classes = ", ".join(
        f"class {number} {need} wanted and {there} found" for number, (need, there) in short.items()
    )
    ground = (
        f"inside blocks of {config.block} pixels, {config.guard} from their edges, and one more in "
        "the other blocks; choose fewer, smaller blocks, a smaller guard, or disjoint: false"
        if config.disjoint
        else "and one more to measure on; choose fewer"
    )
    return f"too few labelled pixels to train on: {classes}, {ground}"
