"""What an audit found: numbers, words, and a verdict."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where tiles of two splits are nearest."""

    splits: tuple[str, str]
    distance_m: float | None
    """None if one of the splits has no tile; 0 for tiles that overlap."""
    tiles: tuple[str, ...]
    """The two."""
    too_near: int
    """Pairs of tiles nearer than was promised."""
    all_counted: bool
    """False if there are more of them."""


@dataclass(frozen=True)
class Copies:
    """Tiles that look the same: hashes of at most three different bits."""

    across_splits: int
    """Pairs of different hashes, and sets of equal ones, in more than one split."""
    within_split: int
    """Tiles that are one too many, within one split."""
    without_pattern: int
    """Tiles that have no hash: nothing differs in them, or an older store."""


@dataclass(frozen=True)
class Certificate:
    """The result of an audit of one version."""

    passed: bool
    version: str
    snapshot: str
    recipe_hash: str
    audited_at: str
    """UTC, ISO 8601."""
    scenes: int
    tiles: int
    promised_m: float
    """Twice the recipe's guard distance."""
    tolerance_m: float
    """By so much a parallelogram may be off the tile's true outline."""
    places: tuple[Place, ...]
    scenes_in_several_splits: int
    nearest_within_a_scene_m: float | None
    """Of the tiles of one scene in different splits; None if there is no such scene."""
    copies: Copies
    unknown_place: Mapping[str, int]
    """Tiles without place or footprint, by split."""
    counts: Mapping[str, int]
    """Over all scenes: in = kept + rejected."""
    shares: Mapping[str, Mapping[str, float]]
    """By `all`, each sensor, `land` and `water`: the share of tiles in each split."""
    breaches: tuple[str, ...]
    """In words, each with what to do."""
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Return the certificate as one JSON object."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def facts(self) -> dict[str, Any]:
        """Return the few numbers that a person wants to see first."""
        least = {
            " - ".join(place.splits): "none" if place.distance_m is None
            else f"{place.distance_m:.1f} m"
            for place in self.places
        }  # fmt: skip
        return {
            "version": self.version, "scenes": self.scenes, "tiles": self.tiles,
            "promised": f"{self.promised_m:g} m", **least,
            "copies across splits": self.copies.across_splits,
            "copies within a split": self.copies.within_split,
            "scenes in several splits": self.scenes_in_several_splits,
            "in = kept + rejected":
                f"{self.counts['in']} = {self.counts['kept']} + {self.counts['rejected']}",
            "shares": {name: round(share, 3) for name, share in self.shares["all"].items()},
        }  # fmt: skip
