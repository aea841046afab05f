"""How well the frozen features of a model that is being pretrained tell classes of tiles apart.

Shape letters: N tiles, D width, C bands.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, PositiveInt
from torch import Tensor

from hypersigma.controls import logistic_regression
from hypersigma.data import wavelengths
from hypersigma.loader import TileBatch
from hypersigma.pixels import labelled
from storage.schema import SchemaError
from storage.stream import ShardSet, order, read_tile

SEED = 0


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ProbeConfig:
    """Labelled tiles that a pretraining run looks at beside the held-out loss."""

    labels: Path
    """A folder with `classes.json` and `<scene_id>.npy` rasters, 0 = unlabelled."""
    sensor: Literal["hyperion", "ahsi", "zy1_ahsi", "enmap"]
    split: Literal["val", "test"] = "val"
    """Whose tiles are told apart; those that it is learnt from are of `train`."""
    tiles: PositiveInt = 256
    """Tiles of each of both splits, at most."""
    neighbours: PositiveInt = 5
    """Nearest tiles, by the cosine of their features, that choose a class together."""


@dataclass(frozen=True)
class LabelledTiles:
    """Tiles of one sensor, each with the class that most of its labelled pixels have."""

    shards: ShardSet
    rows: np.ndarray
    """In the index (N)."""
    label: Tensor
    """Class (N), 0-based."""

    @classmethod
    def of(cls, shards: ShardSet, config: ProbeConfig, split: str) -> Self:
        """Find the tiles of a split.

        Raises:
            SchemaError: None of the split is labelled.
        """
        pixels = labelled(shards, config.labels, sensor=config.sensor, split=split)
        pairs = [
            (int(pixels.tile[numbers[0]]), int(np.bincount(pixels.label[numbers]).argmax()))
            for numbers in pixels.by_tile()
        ]
        rows, label = np.array(pairs).T
        chosen = np.sort(order(len(rows), SEED, 0)[: config.tiles])
        return cls(shards, rows[chosen], torch.from_numpy(label[chosen]))

    def batches(self, bands: int, size: int) -> Iterator[TileBatch]:
        """Yield them in their order, each by its first bands."""
        index = self.shards.index
        for first in range(0, len(self.rows), size):
            rows = self.rows[first : first + size]
            stored = torch.from_numpy(np.stack([read_tile(self.shards, r)[:bands] for r in rows]))
            yield TileBatch(
                stored=stored, wavelength=wavelengths(self.shards, rows)[:, :bands],
                sensor=[index["sensor"][int(row)].as_py() for row in rows],
                band_start=torch.zeros(len(rows), dtype=torch.int64),
                tile_ids=[index["tile_id"][int(row)].as_py() for row in rows],
                valid=None, padding=torch.zeros(len(rows), dtype=torch.bool), damaged=(), after={},
            )  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What features are learnt from, and what they are tried on."""

    train: LabelledTiles
    held_out: LabelledTiles
    neighbours: int

    @classmethod
    def of(cls, shards: ShardSet, config: ProbeConfig) -> Self:
        """Find the tiles.

        Raises:
            SchemaError: A split has no labelled tile, or all of one class to learn from.
        """
        train, held_out = (LabelledTiles.of(shards, config, s) for s in ("train", config.split))
        if len(train.label.unique()) < 2:
            raise SchemaError(
                f"{config.labels}: expected training tiles of two classes or more for probe, got "
                f"{len(train.rows)} tiles of one; take tiles of other scenes, or leave probe out"
            )
        return cls(train, held_out, config.neighbours)

    def scores(
        self, features: Callable[[TileBatch], Tensor], *, bands: int, size: int
    ) -> dict[str, float]:
        """Return the overall accuracies on the held-out tiles.

        `val_knn_oa` by the nearest training tiles, `val_linear_oa` by a logistic regression of
        standardised features, `val_largest_class_oa` by saying the most frequent class.

        Args:
            features: Of a batch (N, D).
            bands: That the model sees.
            size: Tiles in a batch.
        """
        train_ND, held_out_ND = (
            torch.cat([features(batch).float().cpu() for batch in tiles.batches(bands, size)])
            for tiles in (self.train, self.held_out)
        )
        with torch.autocast("cpu", enabled=False):
            return self._scores(train_ND, held_out_ND)

    def _scores(self, train_ND: Tensor, held_out_ND: Tensor) -> dict[str, float]:
        label, true = self.train.label, self.held_out.label
        classes = int(max(label.max(), true.max())) + 1
        near = nearest(train_ND, label, held_out_ND, self.neighbours, classes)
        mean, spread = train_ND.mean(0), train_ND.std(0).clamp(min=1e-6)
        scaled = [(one - mean) / spread for one in (train_ND, held_out_ND)]
        with torch.inference_mode(False), torch.enable_grad():
            linear = logistic_regression(
                scaled[0].clone(), label, scaled[1].clone(), classes
            )  # clones: what inference mode made takes no gradient
        largest = torch.bincount(label).argmax()
        found = {"knn": near, "linear": torch.from_numpy(linear), "largest_class": largest}
        return {f"val_{name}_oa": float((f == true).double().mean()) for name, f in found.items()}


def nearest(
    train_ND: Tensor, label: Tensor, found_ND: Tensor, neighbours: int, classes: int
) -> Tensor:
    """Return the class of most of the nearest features by their cosine; the lowest of several."""
    cosine = F.normalize(found_ND, dim=1) @ F.normalize(train_ND, dim=1).T
    chosen = label[cosine.topk(min(neighbours, len(label)), dim=1).indices]
    return F.one_hot(chosen, classes).sum(1).argmax(1)
