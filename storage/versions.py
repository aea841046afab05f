"""Versions of a store: one commit and one tag each, immutable; the head can move between them."""

import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import icechunk
import zarr

from storage.columns import read_checksums
from storage.index import scene_table, update_index
from storage.nodes import read_column, subgroup
from storage.schema import SchemaError, check_name
from storage.statistics import add_statistics
from storage.work import BRANCH, WORK, Forks, join, new_columns, save

SCENES_AT_ONCE = 128
"""Whose columns a commit holds at a time."""

_TAG = re.compile(r"v([1-9][0-9]*)")


@dataclass(frozen=True)
class Version:
    """One published state of a dataset."""

    tag: str
    snapshot: str
    message: str
    written_at: datetime
    scenes: int
    tiles: int
    recipe_hash: str
    code_version: str
    is_head: bool
    """True for the version that is opened when none is named, and that the next build adds to."""

    names: tuple[str, ...] = ()
    """What else it was tagged as."""


@dataclass(frozen=True)
class Recipe:
    """What tiles are made by."""

    text: str
    hash: str
    """sha256 of its canonical JSON."""


@dataclass(frozen=True)
class Diff:
    """What the second of two versions has that the first has not, and the other way round."""

    scenes_added: tuple[str, ...]
    scenes_removed: tuple[str, ...]
    scenes_changed: tuple[str, ...]
    """In both, with other pixels, masks or corners."""

    tiles_added: tuple[str, ...]
    """Tile ids, here and in the others."""
    tiles_removed: tuple[str, ...]
    tiles_changed: tuple[str, ...]
    """In both, with other pixels or another mask."""


def commit_version(
    repo: icechunk.Repository,
    forks: Forks = MappingProxyType({}),
    *,
    removed: Collection[str] = (),
    recipe: Recipe | None = None,
    code_version: str,
) -> Version:
    """Publish what was checkpointed and what `forks` wrote, as the next version: one commit.

    Reads the new scenes' columns and the head's table of scenes, never pixels nor, if no scene
    is replaced or removed, anything of the other scenes' tiles. Hold `commit_lock` from `begin` on.

    Args:
        repo: The store, after `begin`.
        forks: Of sessions that `begin` returned, each with its scene written to the end and not yet
            checkpointed; forks of failed writers stay out.
        removed: Scenes that the version is not to have, of the head or of the work.
        recipe: What the version's tiles were made by from now on; None: as before.
        code_version: Version of the code that made the tiles.

    Raises:
        SchemaError: Nothing changes, or a scene is unfinished.
        icechunk.ConflictError: Another process works on this store; nothing was published.
        icechunk.SessionStateError: Two forks wrote the same scene.
    """
    session, added = join(repo, forks)
    root = zarr.open_group(session.store, mode="r+")
    before = scene_table(root)
    added -= set(removed)
    gone = set(removed) & set(before["scene_id"])
    if not added and not gone:
        raise SchemaError("nothing to commit: no scene was written, so no version is made")
    for name in removed:
        if f"scenes/{name}" in root:
            del root[f"scenes/{name}"]
    made_by = {"recipe": recipe.text, "recipe_hash": recipe.hash} if recipe is not None else {}
    root.attrs.update({**made_by, "software": software()})
    went = (gone | added) & set(before["scene_id"])
    add_statistics(root, _groups(root, added), _groups(_head(repo), went) if went else ())
    names: list[str] = before["scene_id"]
    counts: dict[str, int] = {}
    if went:
        counts, names = update_index(root, names, {}, went)
    for some in itertools.batched(sorted(added), SCENES_AT_ONCE):
        counts, names = update_index(root, names, new_columns(root, some), set())
    tag, tiles = f"v{max([0, *_numbers(repo.list_tags())]) + 1}", sum(counts.values())
    metadata = {
        "version": tag,
        "scenes": len(names),
        "tiles": tiles,
        "splits": counts,
        "scene_set": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(),
        "recipe_hash": root.attrs["recipe_hash"],
        "code_version": code_version,
    }
    replaced = len(went - gone)
    change = {"replaced": replaced, "removed": len(gone)}
    new = tiles - sum(int(count) for count in before["kept"])
    more = "".join(f", {n} {what}" for what, n in change.items() if n)
    message = (
        f"{tag}: {len(names)} scenes (+{len(added) - replaced}{more}), {tiles} tiles ({new:+d})"
    )
    save(repo, session, message, metadata)
    finish_version(repo)
    return find_version(repo, tag)


def finish_version(repo: icechunk.Repository) -> None:
    """Publish a version that was committed to its end when a crash came: move the head, tag it."""
    if WORK in repo.list_branches():
        tip = next(repo.ancestry(branch=WORK))
        head = repo.lookup_branch(BRANCH)
        unpublished = "version" in tip.metadata and tip.metadata["version"] not in repo.list_tags()
        if unpublished and tip.parent_id == head:
            repo.reset_branch(BRANCH, tip.id, from_snapshot_id=head)
    published = next(repo.ancestry(branch=BRANCH))
    tag = published.metadata.get("version")
    if tag is None or tag in repo.list_tags():
        return
    try:
        repo.create_tag(tag, published.id)
    except icechunk.AlreadyExistsError:
        if repo.lookup_tag(tag) != published.id:
            raise


def versions(repo: icechunk.Repository) -> list[Version]:
    """Return all versions, oldest first, whether or not the head descends from them."""
    snapshots, head = _tagged(repo)
    return [_version(repo, name, snapshots, head) for name in _ordered(snapshots)]


def find_version(repo: icechunk.Repository, version: str | None = None) -> Version:
    """Return the version of a tag (`v2`, or a name given by `tag`), or the head's for None.

    Raises:
        SchemaError: There is no such version, or none at all yet.
    """
    snapshots, head = _tagged(repo)
    names = _ordered(snapshots)
    if not names:
        raise SchemaError("the store has no version yet; `hypersigma-data build` makes the first")
    wanted = head if version is None else snapshots.get(version)
    for name in names:
        if snapshots[name] == wanted:
            return _version(repo, name, snapshots, head)
    raise SchemaError(f"version must be one of {sorted(snapshots)}, got {version!r}")


def diff(repo: icechunk.Repository, a: str, b: str) -> Diff:
    """Compare two versions: what came, went and changed from `a` to `b`; reads no pixels.

    Raises:
        SchemaError: There is no such version.
    """
    old, new = (_opened(repo, version) for version in (a, b))
    content_a, content_b = (
        dict(zip(table["scene_id"], table["content"], strict=True))
        for table in map(scene_table, (old, new))
    )
    changed = {n for n in content_a.keys() & content_b if content_a[n] != content_b[n]}
    added, removed = content_b.keys() - content_a.keys(), content_a.keys() - content_b.keys()
    tiles_a, tiles_b = _checksums(old, removed | changed), _checksums(new, added | changed)
    both = tiles_a.keys() & tiles_b
    return Diff(
        scenes_added=tuple(sorted(added)),
        scenes_removed=tuple(sorted(removed)),
        scenes_changed=tuple(sorted(changed)),
        tiles_added=tuple(sorted(tiles_b.keys() - both)),
        tiles_removed=tuple(sorted(tiles_a.keys() - both)),
        tiles_changed=tuple(sorted(name for name in both if tiles_a[name] != tiles_b[name])),
    )


def tag(repo: icechunk.Repository, name: str, version: str) -> Version:
    """Give a version one more name, for good.

    Raises:
        SchemaError: `name` is taken, looks like a version, or the version does not exist.
    """
    target = find_version(repo, version)
    if _TAG.fullmatch(check_name("a tag", name)):
        raise SchemaError(f"tags v1, v2, ... are given by `build`; choose another than {name!r}")
    try:
        repo.create_tag(name, target.snapshot)
    except icechunk.AlreadyExistsError as error:
        raise SchemaError(f"tag {name!r} is taken, and tags never move; choose another") from error
    return find_version(repo, name)


def rollback(repo: icechunk.Repository, version: str) -> Version:
    """Make `version` the head. All versions stay; the next build adds to it under a new number."""
    target = find_version(repo, version)
    head = repo.lookup_branch(BRANCH)
    repo.reset_branch(BRANCH, target.snapshot, from_snapshot_id=head)
    return find_version(repo, version)


def software() -> dict[str, str]:
    """Return the versions of the libraries that write a store."""
    names = ("icechunk", "numpy", "xarray", "zarr")
    return {name: importlib.metadata.version(name) for name in names}


def _tagged(repo: icechunk.Repository) -> tuple[dict[str, str], str]:
    """Return the snapshot of each tag, and that of the version that is opened when none is named.

    Between the head's move and its tag that is the version before.
    """
    snapshots = {tag: repo.lookup_tag(tag) for tag in repo.list_tags()}
    published = {snapshots[name] for name in _ordered(snapshots)}
    ancestry = (info.id for info in repo.ancestry(branch=BRANCH))
    return snapshots, next((snapshot for snapshot in ancestry if snapshot in published), "")


def _ordered(tags: Collection[str]) -> list[str]:
    """Return the versions among tags, oldest first."""
    return [f"v{number}" for number in sorted(_numbers(tags))]


def _version(repo: icechunk.Repository, name: str, snapshots: dict[str, str], head: str) -> Version:
    info = next(repo.ancestry(tag=name))
    metadata: dict[str, Any] = info.metadata
    return Version(
        tag=name,
        snapshot=info.id,
        message=info.message,
        written_at=info.written_at,
        scenes=metadata["scenes"],
        tiles=metadata["tiles"],
        recipe_hash=metadata["recipe_hash"],
        code_version=metadata["code_version"],
        is_head=info.id == head,
        names=tuple(sorted(n for n, s in snapshots.items() if s == info.id and n != name)),
    )


def _head(repo: icechunk.Repository) -> zarr.Group:
    return zarr.open_group(repo.readonly_session(BRANCH).store, mode="r")


def _groups(root: zarr.Group, names: set[str]) -> Iterator[zarr.Group]:
    """Yield scenes' groups one after the other: each holds its attrs."""
    return (subgroup(root, f"scenes/{name}") for name in sorted(names))


def _numbers(tags: Collection[str]) -> list[int]:
    return [int(match[1]) for match in map(_TAG.fullmatch, tags) if match]


def _opened(repo: icechunk.Repository, version: str) -> zarr.Group:
    session = repo.readonly_session(snapshot_id=find_version(repo, version).snapshot)
    return zarr.open_group(session.store, mode="r")


def _checksums(root: zarr.Group, scene_ids: set[str]) -> dict[str, object]:
    """Return the checksums of scenes' tiles by their names; an older store's are like no others."""
    found: dict[str, object] = {}
    for scene in _groups(root, scene_ids):
        names = read_column(scene, "tile_id").tolist()
        sums = read_checksums(scene)
        known = [object()] * len(names) if sums is None else sums.tolist()
        found |= dict(zip(names, known, strict=True))
    return found
