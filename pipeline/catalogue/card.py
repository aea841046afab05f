"""Everything that a dataset card says about one version, gathered and reconciled."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from pipeline.catalogue.certificate import check_same
from storage.export import pinned, scene_table, tile_table
from storage.location import Location
from storage.nodes import read_column, subgroup
from storage.schema import FOOTPRINT_COORDS, SchemaError
from storage.statistics import read_statistics
from storage.store import open_repository, versions
from storage.versions import Version

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NO_QUALITY = {
    "tile_id", "scene_id", "sensor", "split", "row", "col", "lon", "lat", "position", "pattern",
    *FOOTPRINT_COORDS,
}  # fmt: skip


@dataclass(frozen=True)
class Bands:
    """Statistics of one sensor's stored pixels in physical units; all arrays (band)."""

    split: str
    """Of which they are: "train", or "all" for a sensor that has no tile there."""
    units: str
    number: np.ndarray
    wavelength: np.ndarray
    """[nm]."""
    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    quantiles: np.ndarray
    """(`QUANTILES`, band)."""


@dataclass(frozen=True)
class Card:
    """One version of a dataset."""

    location: str
    """The store, as the reader of the card can name it."""
    dataset: str
    version: Version
    history: tuple[Version, ...]
    """All versions, oldest first."""
    recipe: str
    """As the store has it: JSON, or text that somebody else wrote."""
    tiles: pa.Table
    """As `storage.export.tile_table` returns it."""
    scenes: pa.Table
    """As `storage.export.scene_table` returns it."""
    spectral: Mapping[str, Mapping[str, list[float]]]
    """By scene, its `band`, `wavelength` [nm] and `fwhm` [nm]."""
    attrs: Mapping[str, Mapping[str, Any]]
    """By scene, what places it in a grid: `crs`, `transform`, `shape`; as far as it has them."""
    bands: Mapping[str, Bands]
    """By sensor; empty for a version without statistics."""
    certificate: Mapping[str, Any] | None
    """What `audit` found; None if it was not run for this version."""

    @property
    def outlined(self) -> bool:
        """Whether the outlines of every scene's tiles are known, not their centres alone."""
        return "centres" not in self.scenes["footprint_of"].to_pylist()

    @property
    def sensors(self) -> list[str]:
        """Of the scenes, by name."""
        return sorted(set(self.scenes["sensor"].to_pylist()))

    @property
    def quality(self) -> list[str]:
        """The quality columns."""
        return [name for name in self.tiles.column_names if name not in _NO_QUALITY]

    @property
    def rejected(self) -> dict[str, int]:
        """Tiles of all scenes that were not kept, by reason."""
        total: dict[str, int] = {}
        for scene in self.scenes["rejected"].to_pylist():
            for reason, count in scene:
                total[reason] = total.get(reason, 0) + count
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def total(self, column: str) -> int:
        """Return the sum of a column of the scenes."""
        return int(pc.sum(self.scenes[column]).as_py() or 0)


def gather(
    location: Location,
    version: str | None = None,
    certificate: Mapping[str, Any] | None = None,
) -> Card:
    """Return what there is to say about a version; reads its index and attributes, no pixels.

    Args:
        location: The store.
        version: A tag, or None for the head.
        certificate: What `audit` found; None: what the version's metadata have of it.

    Raises:
        SchemaError: No such version, it is empty, or its counts do not add up.
    """
    chosen, group = pinned(location, version)
    tiles = tile_table(group)
    scenes = scene_table(group, tiles)
    if not len(scenes):
        raise SchemaError(f"version {chosen.tag} has no scenes, so there is nothing to report")
    reconcile(chosen, tiles, scenes)
    repo = open_repository(location)
    names = scenes["scene_id"].to_pylist()
    nodes = {name: subgroup(group, f"scenes/{name}") for name in names}
    found = _parsed(certificate or version_metadata(repo, chosen).get("certificate"))
    if found is not None:
        check_same(found, chosen)
    return Card(
        location=str(location),
        dataset=str(group.attrs["dataset"]),
        version=chosen,
        history=tuple(versions(repo)),
        recipe=str(group.attrs["recipe"]),
        tiles=tiles,
        scenes=scenes,
        spectral={name: _spectral(node) for name, node in nodes.items()},
        attrs={
            name: {k: node.attrs[k] for k in ("crs", "transform", "shape") if k in node.attrs}
            for name, node in nodes.items()
        },
        bands=_bands(group),
        certificate=found,
    )


def reconcile(version: Version, tiles: pa.Table, scenes: pa.Table) -> None:
    """Check that counts agree: of each scene, of the index, and of the version.

    Raises:
        SchemaError: In is not kept + rejected, or the index has other tiles than the scenes say.
    """
    indexed = tiles["scene_id"].combine_chunks()
    by_code = np.bincount(indexed.indices.to_numpy(), minlength=len(indexed.dictionary))
    stored = dict(zip(indexed.dictionary.to_pylist(), by_code.tolist(), strict=True))
    wrong = []
    for scene in scenes.select(["scene_id", "tiles_in", "tiles_kept", "rejected"]).to_pylist():
        name, kept = scene["scene_id"], scene["tiles_kept"]
        rejected = sum(count for _, count in scene["rejected"])
        if scene["tiles_in"] != kept + rejected:
            wrong.append(f"{name}: {scene['tiles_in']} in, {kept} kept + {rejected} rejected")
        if kept != stored[name]:
            wrong.append(f"{name}: {kept} kept, {stored[name]} in the index")
    for what, expected, got in (
        ("scenes", version.scenes, len(scenes)),
        ("tiles", version.tiles, len(tiles)),
    ):
        if expected != got:
            wrong.append(f"{version.tag}: {expected} {what} by its commit, {got} in the index")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise SchemaError(
            f"counts of {version.tag} do not add up: {'; '.join(wrong[:5])}{more}; "
            "no report is written of it: build those scenes again, or report an older version"
        )


def version_metadata(repo: icechunk.Repository, version: Version) -> dict[str, Any]:
    """Return what a version's commit says of it."""
    return next(repo.ancestry(snapshot_id=version.snapshot)).metadata


def _spectral(scene: zarr.Group) -> dict[str, list[float]]:
    return {name: read_column(scene, name).tolist() for name in ("band", "wavelength", "fwhm")}


def _bands(group: zarr.Group) -> dict[str, Bands]:
    """Return the version's statistics by sensor, none for a store that was made before them."""
    train = read_statistics(group, split="train", probabilities=QUANTILES)
    everything = read_statistics(group, split="all", probabilities=QUANTILES)
    found = {}
    for sensor in sorted(train):
        split = "train" if train[sensor].count.any() else "all"
        of = train[sensor] if split == "train" else everything[sensor]
        found[sensor] = Bands(
            split, of.units, of.band, of.wavelength, of.count, of.mean, of.std, of.quantiles
        )
    return found


def _parsed(certificate: Any) -> Mapping[str, Any] | None:
    found = json.loads(certificate) if isinstance(certificate, str) else certificate
    return found if isinstance(found, Mapping) else None
