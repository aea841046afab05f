"""The tile store: an Icechunk repository of scenes, one version a commit.

repo = create(location, dataset="demo", recipe=text, recipe_hash=digest)
with commit_lock(location):
    session = begin(repo)
    forks = {scene_id: session.fork() for scene_id in scenes}  # to threads or spawned processes
    ...                                                        # write_scene(fork, tiles) in each
    checkpoint(repo, {"a": forks.pop("a")})                    # this outlasts a crash
    commit_version(repo, forks, code_version="0.1.0")
group = open_version(location, "v1")
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import icechunk
import zarr

from storage.index import scene_table
from storage.location import MANY_SCENES, Location, icechunk_storage, repository_config
from storage.lock import commit_lock, is_locked
from storage.scenes import kept_tiles, scene_dataset, write_scene
from storage.schema import SchemaError
from storage.versions import (
    Diff,
    Recipe,
    Version,
    commit_version,
    diff,
    find_version,
    finish_version,
    rollback,
    software,
    tag,
    versions,
)
from storage.work import BRANCH, WORK, begin_work, checkpoint, drop_work, staged

__all__ = [
    "SCHEMA", "Diff", "Recipe", "Version", "begin", "checkpoint", "collect_garbage", "commit_lock",
    "commit_version", "create", "diff", "drop_work", "exists", "find_version", "is_locked",
    "kept_tiles", "open_repository", "open_version", "rollback", "scene_dataset", "scenes",
    "staged", "tag", "versions", "write_scene",
]  # fmt: skip

SCHEMA = "hypersigma-store/1"


def create(
    location: Location, *, dataset: str, recipe: str, recipe_hash: str, scenes: int = MANY_SCENES
) -> icechunk.Repository:
    """Return the store of a dataset, made if it does not exist.

    Args:
        location: A folder or `s3://bucket/prefix`.
        dataset: Its name.
        recipe: The recipe's text; a store that has a version keeps its own until the next.
        recipe_hash: sha256 of the recipe's canonical JSON.
        scenes: About how many it will have: what is remembered of its lists is bounded by that.

    Raises:
        SchemaError: There is a store of another dataset or schema, or something else.
    """
    storage, config = icechunk_storage(location), repository_config(scenes)
    if icechunk.Repository.exists(storage):
        repo = icechunk.Repository.open(storage, config=config)
    else:
        try:
            repo = icechunk.Repository.create(storage, config=config)
        except icechunk.InvalidInputError as error:
            raise SchemaError(
                f"{location} must be empty or a store, got other files; name another place"
            ) from error
    attrs: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": dataset,
        "recipe": recipe,
        "recipe_hash": recipe_hash,
        "software": software(),
    }
    # Icechunk's own root snapshot: new, or a creation that was cut off before its first commit.
    if next(repo.ancestry(branch=BRANCH)).parent_id is None:
        session = repo.writable_session(BRANCH)
        root = zarr.create_group(session.store, attributes=attrs)
        root.create_group("scenes")
        root.create_group("index").create_group("scenes")  # its columns come with the first scenes
        session.commit(f"{dataset}: empty store")
    if not versions(repo):
        _adopt(repo, attrs)
    _check_same(location, repo, attrs)
    finish_version(repo)
    return repo


def exists(location: Location) -> bool:
    """Return whether there is a store."""
    return icechunk.Repository.exists(icechunk_storage(location))


def open_repository(location: Location) -> icechunk.Repository:
    """Open a store that exists.

    Raises:
        SchemaError: There is none.
    """
    storage = icechunk_storage(location)
    if not icechunk.Repository.exists(storage):
        raise SchemaError(f"no store at {location}; `hypersigma-data build CONFIG` makes one")
    return icechunk.Repository.open(storage, config=repository_config())


def scenes(repo: icechunk.Repository) -> dict[str, dict[str, str]]:
    """Return the scenes of the head: by scene id, what the index says of each."""
    session = repo.readonly_session(BRANCH)
    table = scene_table(zarr.open_group(session.store, mode="r"))
    rows = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    return {row["scene_id"]: row for row in rows}


def begin(repo: icechunk.Repository) -> icechunk.Session:
    """Return a session whose forks take scenes, on what an earlier build left unfinished, if any.

    A version that such a build had committed to its end is published first.
    """
    finish_version(repo)
    begin_work(repo)
    return repo.writable_session(WORK)


def open_version(location: Location, version: str | None = None) -> zarr.Group:
    """Open one version to read; it stays what it is whatever is built later.

    Args:
        location: The store.
        version: A tag, or None for the head.

    Raises:
        SchemaError: No store, or no such version.
    """
    repo = open_repository(location)
    snapshot = find_version(repo, version).snapshot
    return zarr.open_group(repo.readonly_session(snapshot_id=snapshot).store, mode="r")


def collect_garbage(
    location: Location, older_than: timedelta, *, dry_run: bool = False
) -> dict[str, int]:
    """Remove objects that no version nor unfinished work needs; count them and their bytes.

    Holds the committer's lock: what a running build has written and not yet committed is needed
    by nothing that can be seen.

    Args:
        location: The store.
        older_than: Younger objects stay.
        dry_run: Only count.

    Raises:
        SchemaError: There is no store.
        TimeoutError: A build holds the store.
    """
    open_repository(location)  # a wrong path must leave no lock behind
    with commit_lock(location) as lock:
        repo = open_repository(location)
        finish_version(repo)
        lock.check()
        found = repo.garbage_collect(datetime.now(UTC) - older_than, dry_run=dry_run)
    counts = (
        found.chunks_deleted, found.manifests_deleted, found.snapshots_deleted,
        found.attributes_deleted, found.transaction_logs_deleted,
    )  # fmt: skip
    return {"objects": sum(counts), "bytes": found.bytes_deleted}


def _adopt(repo: icechunk.Repository, attrs: dict[str, Any]) -> None:
    """Give a store without a version these attributes: a failed first build binds nothing."""
    session = repo.writable_session(BRANCH)
    root = zarr.open_group(session.store, mode="r+")
    # Newer libraries are no reason to give up what an unfinished first build has done.
    if {**root.attrs, "software": None} != {**attrs, "software": None}:
        root.attrs.put(attrs)
        session.commit(f"{attrs['dataset']}: another recipe before the first version")


def _check_same(location: Location, repo: icechunk.Repository, expected: dict[str, Any]) -> None:
    found = zarr.open_group(repo.readonly_session(BRANCH).store, mode="r").attrs
    for key in ("schema", "dataset"):
        if found.get(key) != expected[key]:
            raise SchemaError(
                f"{location} is a store with {key} {found.get(key)!r}, expected "
                f"{expected[key]!r}; give the config another store, or its old {key} back"
            )
