"""Work that is not published yet: finished scenes on a branch of their own.

The branch `build` is the head and, on top of it, one commit with the scenes that are finished so
far; each further checkpoint takes that commit's place. Readers of versions never see it. A build
that is cut off goes on from there, and `commit_version` makes it the next version.
"""

from collections.abc import Collection, Mapping
from typing import Any

import icechunk
import zarr

from storage.scenes import SceneColumns, scene_columns
from storage.schema import SchemaError

type Forks = Mapping[str, icechunk.ForkSession]
"""By scene id, the session that wrote this scene and no other."""

BRANCH = "main"
WORK = "build"


def begin_work(repo: icechunk.Repository) -> None:
    """Make the branch of work, or keep what a build that was cut off left there.

    Work that was begun on another head, before a rollback, is given up. Call `finish_version`
    before: a commit here that names a version is a published one afterwards.
    """
    head = repo.lookup_branch(BRANCH)
    if WORK not in repo.list_branches():
        repo.create_branch(WORK, head)
        return
    tip = next(repo.ancestry(branch=WORK))
    if tip.id != head and ("version" in tip.metadata or tip.parent_id != head):
        repo.reset_branch(WORK, head, from_snapshot_id=tip.id)


def drop_work(repo: icechunk.Repository) -> None:
    """Give up what is finished and not published."""
    repo.reset_branch(WORK, repo.lookup_branch(BRANCH))


def checkpoint(repo: icechunk.Repository, forks: Forks) -> None:
    """Keep the scenes that forks wrote, so that they outlast this build.

    What Icechunk remembers of it, the lists of all nodes before and after, goes with the call.

    Raises:
        SchemaError: A scene is unfinished; nothing is kept.
        icechunk.ConflictError: Another process works on this store; nothing is kept.
    """
    repo = icechunk.Repository.open(repo.storage, config=repo.config)
    session, _ = join(repo, forks)
    save(repo, session, "work in progress", {})


def staged(repo: icechunk.Repository) -> dict[str, dict[str, Any]]:
    """Return the attrs of the scenes that are finished and not published yet."""
    names = _staged_names(repo)
    if not names:
        return {}
    root = zarr.open_group(repo.readonly_session(WORK).store, mode="r")
    return {name: dict(root[f"scenes/{name}"].attrs) for name in sorted(names)}


def join(repo: icechunk.Repository, forks: Forks) -> tuple[icechunk.Session, set[str]]:
    """Return a session on the work with forks merged into it, and all scenes it adds to the head.

    Nothing is committed here, so that a refusal leaves everything as it was. A fork is not asked
    what it wrote: one that comes from another process would read the list of all nodes for that.

    Raises:
        SchemaError: A scene is unfinished, or another build has come between.
    """
    tip, head = next(repo.ancestry(branch=WORK)), repo.lookup_branch(BRANCH)
    if "version" in tip.metadata and tip.id != head:
        raise SchemaError(
            f"another build has committed {tip.metadata['version']} and not yet published it; "
            "start this one again"
        )
    names = _staged_names(repo)
    session = repo.writable_session(WORK)
    session.merge(*forks.values())
    root = zarr.open_group(session.store, mode="r")
    for name in sorted(forks):
        scene = root.get(f"scenes/{name}")
        if scene is None or "content" not in scene.attrs:
            raise SchemaError(
                f"{name} was not written to its end; leave the fork of a failed writer out"
            )
    return session, names | set(forks)


def save(
    repo: icechunk.Repository, session: icechunk.Session, message: str, metadata: dict[str, Any]
) -> str:
    """Commit a session of the work: on the head, or in place of the commit that is there."""
    fresh = session.snapshot_id == repo.lookup_branch(BRANCH)
    write = session.commit if fresh else session.amend
    return write(message, metadata=metadata)


def new_columns(root: zarr.Group, names: Collection[str]) -> dict[str, SceneColumns]:
    """Return columns and attrs of scenes, by name."""
    return {name: scene_columns(root, name) for name in sorted(names)}


def scenes_of(groups: set[str]) -> set[str]:
    """Return the scenes among paths of groups."""
    parts = (path.strip("/").split("/") for path in groups)
    return {part[1] for part in parts if len(part) == 2 and part[0] == "scenes"}


def _staged_names(repo: icechunk.Repository) -> set[str]:
    if WORK not in repo.list_branches():
        return set()
    head, tip = repo.lookup_branch(BRANCH), repo.lookup_branch(WORK)
    if head == tip:
        return set()
    return scenes_of(repo.diff(from_snapshot_id=head, to_snapshot_id=tip).new_groups)
