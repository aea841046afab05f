"""Versions of a store: one commit and one tag each, immutable; the head can move between them."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import icechunk
import numpy as np
import zarr

from storage.index import Index, load_index, save_index, with_scenes, without_scenes
from storage.scenes import SceneColumns, scene_columns
from storage.schema import SPLITS, SchemaError, check_name

BRANCH = "main"
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
class Diff:
    """What the second of two versions has that the first has not, and the other way round."""

    scenes_added: tuple[str, ...]
    scenes_removed: tuple[str, ...]
    scenes_changed: tuple[str, ...]
    """In both, with other pixels, masks or corners."""

    tiles_added: int
    tiles_removed: int


def commit_version(
    repo: icechunk.Repository,
    session: icechunk.Session,
    forks: Sequence[icechunk.ForkSession],
    *,
    code_version: str,
) -> Version:
    """Publish the scenes that forks of `session` wrote, as the next version: one commit, one tag.

    Reads the head's index and the new scenes' columns, never pixels nor the other scenes. Hold
    `commit_lock` from `begin` on.

    Args:
        repo: The store.
        session: What `begin` returned.
        forks: Its forks, each with scenes written to their end; forks of failed writers stay out.
        code_version: Version of the code that made the tiles.

    Raises:
        SchemaError: Nothing was added, a scene is unfinished, or two forks wrote the same scene.
        icechunk.ConflictError: Another process committed since `begin`; begin again.
    """
    new = _gather(forks)
    session.merge(*forks)
    root = zarr.open_group(session.store, mode="r+")
    before = load_index(root)
    replaced = set(new) & set(before.scene_ids)
    after = with_scenes(without_scenes(before, replaced), new)
    save_index(root, after)
    tag = f"v{max([0, *_numbers(repo)]) + 1}"
    metadata = {
        "version": tag,
        "scenes": len(after.scene_ids),
        "tiles": _count(after),
        "splits": _split_counts(after),
        "scene_set": hashlib.sha256("\n".join(sorted(after.scene_ids)).encode()).hexdigest(),
        "recipe_hash": root.attrs["recipe_hash"],
        "code_version": code_version,
    }
    session.commit(_message(tag, before, after, len(replaced)), metadata)
    finish_version(repo)
    return find_version(repo, tag)


def finish_version(repo: icechunk.Repository) -> None:
    """Tag the head if its commit says that it is a version and a crash left it without its tag."""
    head = next(repo.ancestry(branch=BRANCH))
    tag = head.metadata.get("version")
    if tag is None or tag in repo.list_tags():
        return
    try:
        repo.create_tag(tag, head.id)
    except icechunk.AlreadyExistsError:
        if repo.lookup_tag(tag) != head.id:
            raise


def versions(repo: icechunk.Repository) -> list[Version]:
    """Return all versions, oldest first, whether or not the head descends from them."""
    snapshots = {tag: repo.lookup_tag(tag) for tag in repo.list_tags()}
    head = repo.lookup_branch(BRANCH)
    return [_version(repo, f"v{n}", snapshots, head) for n in sorted(_numbers(repo))]


def find_version(repo: icechunk.Repository, version: str | None = None) -> Version:
    """Return the version of a tag (`v2`, or a name given by `tag`), or the head's for None.

    Raises:
        SchemaError: There is no such version, or none at all yet.
    """
    known = versions(repo)
    for candidate in known:
        if candidate.is_head if version is None else version in (candidate.tag, *candidate.names):
            return candidate
    if not known:
        raise SchemaError("the store has no version yet; `hypersigma-data build` makes the first")
    names = [name for candidate in known for name in (candidate.tag, *candidate.names)]
    raise SchemaError(f"version must be one of {names}, got {version!r}")


def diff(repo: icechunk.Repository, a: str, b: str) -> Diff:
    """Compare two versions by their indexes: what came and went from `a` to `b`."""
    old, new = (_contents(repo, version) for version in (a, b))
    content_a, content_b = (dict(zip(i.scene_ids, i.content, strict=True)) for i in (old, new))
    changed = {n for n in content_a.keys() & content_b if content_a[n] != content_b[n]}
    added, removed = content_b.keys() - content_a.keys(), content_a.keys() - content_b.keys()
    tiles_a, tiles_b = _corners(old, removed | changed), _corners(new, added | changed)
    return Diff(
        scenes_added=tuple(sorted(added)),
        scenes_removed=tuple(sorted(removed)),
        scenes_changed=tuple(sorted(changed)),
        tiles_added=len(tiles_b - tiles_a),
        tiles_removed=len(tiles_a - tiles_b),
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


def _gather(forks: Sequence[icechunk.ForkSession]) -> dict[str, SceneColumns]:
    """Return the columns of the scenes that the forks wrote.

    Looks before the merge, so that a refusal leaves the session as it was.
    """
    found: dict[str, SceneColumns] = {}
    for fork in forks:
        root = zarr.open_group(fork.store, mode="r")
        for name in _written(fork):
            if name in found:
                raise SchemaError(f"two writers wrote the same scene, {name}; leave one out")
            found[name] = scene_columns(root, name)
    if not found:
        raise SchemaError("nothing to commit: no scene was written, so no version is made")
    return found


def _written(fork: icechunk.ForkSession) -> list[str]:
    created = (path.strip("/").split("/") for path in fork.status().new_groups)
    return [parts[1] for parts in created if len(parts) == 2 and parts[0] == "scenes"]


def _message(name: str, before: Index, after: Index, replaced: int) -> str:
    scenes, tiles = len(after.scene_ids), _count(after)
    more = f"+{scenes - len(before.scene_ids)}" + (f", {replaced} replaced" if replaced else "")
    return f"{name}: {scenes} scenes ({more}), {tiles} tiles ({tiles - _count(before):+d})"


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


def _numbers(repo: icechunk.Repository) -> list[int]:
    return [int(match[1]) for match in map(_TAG.fullmatch, repo.list_tags()) if match]


def _contents(repo: icechunk.Repository, version: str) -> Index:
    session = repo.readonly_session(snapshot_id=find_version(repo, version).snapshot)
    return load_index(zarr.open_group(session.store, mode="r"))


def _corners(index: Index, scene_ids: set[str]) -> set[tuple[str, int, int]]:
    wanted = np.array([name in scene_ids for name in index.scene_ids], dtype=bool)
    rows = np.flatnonzero(wanted[index.tiles["scene"]])
    names = (index.scene_ids[number] for number in index.tiles["scene"][rows].tolist())
    corners = (index.tiles[name][rows].tolist() for name in ("row", "col"))
    return set(zip(names, *corners, strict=True))


def _count(index: Index) -> int:
    return len(index.tiles["scene"])


def _split_counts(index: Index) -> dict[str, int]:
    counts = np.bincount(index.tiles["split"], minlength=len(SPLITS)).tolist()
    return dict(zip(SPLITS, counts, strict=True))
