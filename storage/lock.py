"""One committer at a time: a lock file beside a local store, a lease beside one in a bucket."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import obstore
from filelock import FileLock, Timeout
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import ObjectStore

from storage.location import Location, files_beside, local_path

LOCK_TIMEOUT = 600.0
LEASE_SECONDS = 60.0
"""A lease that is not renewed for so long is free: its holder is dead or cut off."""
_KEY = "lease.json"


class LockLostError(RuntimeError):
    """This process is no longer the store's only committer."""


class Held:
    """The right to commit."""

    def check(self) -> None:
        """Ask, before a commit, whether the right still holds; a lock file's does.

        Raises:
            LockLostError: It does not.
        """


@contextmanager
def commit_lock(location: Location, *, timeout: float = LOCK_TIMEOUT) -> Iterator[Held]:
    """Be the only committer of a store, from `begin` to the end of `commit_version`.

    A local folder is guarded by a lock file beside it, freed by the system if its holder dies. In
    a bucket a small object is taken and renewed by conditional puts; a holder that dies is
    succeeded after `LEASE_SECONDS`, and one that was only slow is told by `check` (and, at the
    latest, by Icechunk's own conditional put of the branch).

    Args:
        location: The store.
        timeout: Seconds to wait for another committer.

    Raises:
        TimeoutError: Another process kept the lock for longer than `timeout`.
    """
    folder = local_path(location)
    if folder is None:
        with lease(files_beside(location, "lock"), str(location), timeout=timeout) as held:
            yield held
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=timeout)
    try:
        lock.acquire()
    except Timeout as error:
        raise _taken(str(folder), timeout) from error
    try:
        yield Held()
    finally:
        lock.release()


def is_locked(location: Location) -> bool:
    """Return whether a process has the right to commit, or had it until it was cut off just now."""
    folder = local_path(location)
    if folder is None:
        return _is_held(files_beside(location, "lock"))
    path = folder.with_name(f"{folder.name}.lock")
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def lease(
    files: ObjectStore, name: str, *, timeout: float = LOCK_TIMEOUT, seconds: float | None = None
) -> Iterator[Held]:
    """Hold the lease that lies in `files`; renewed by a thread until the end.

    Args:
        files: An object store with conditional puts.
        name: What is guarded, for messages.
        timeout: Seconds to wait for another holder.
        seconds: For how long a lease lasts without being renewed; None: `LEASE_SECONDS`.

    Raises:
        TimeoutError: Another process kept it for longer than `timeout`.
    """
    held = _Lease(files, name, LEASE_SECONDS if seconds is None else seconds)
    held.acquire(timeout)
    stop = threading.Event()
    renewing = threading.Thread(target=held.renew_until, args=(stop,), daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        stop.set()
        renewing.join()
        held.release()


class _Lease(Held):
    """A lease taken by conditional puts; the clock is each process's own, of no common time."""

    def __init__(self, files: ObjectStore, name: str, seconds: float) -> None:
        self._files, self._name, self._seconds = files, name, seconds
        self._holder = uuid.uuid4().hex
        self._renewals = 0
        self._tag: str | None = None
        self._sure_until = 0.0

    def check(self) -> None:
        if time.monotonic() > self._sure_until:
            raise LockLostError(
                f"this build could not renew its lease of {self._name} for {self._seconds:g} s, "
                f"and another may have taken it: nothing more is committed; start it again"
            )

    def acquire(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        seen, since = None, time.monotonic()
        while True:
            content, tag = _read(self._files)
            if tag != seen:
                seen, since = tag, time.monotonic()
            stale = time.monotonic() - since > self._seconds
            if (content is None or _is_free(content) or stale) and self._put(tag):
                return
            if time.monotonic() > deadline:
                raise _taken(self._name, timeout, content)
            time.sleep(min(2.0, self._seconds / 10))

    def renew_until(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds / 6):
            try:
                if not self._put(self._tag):
                    return
            except (BaseError, OSError):
                continue  # the store is away: `check` says when that has lasted too long

    def release(self) -> None:
        try:
            self._put(self._tag, holder="")
        except (BaseError, OSError):
            return  # it runs out by itself

    def _put(self, tag: str | None, holder: str | None = None) -> bool:
        """Write the lease if it is still the one of `tag`; return whether it is ours then."""
        self._renewals += 1
        began = time.monotonic()
        content = {
            "holder": self._holder if holder is None else holder,
            "renewals": self._renewals, "by": self._holder,  # so that no two contents are equal
            "host": socket.gethostname(), "pid": os.getpid(),
        }  # fmt: skip
        try:
            done = obstore.put(self._files, _KEY, json.dumps(content).encode(),
                               mode="create" if tag is None else {"e_tag": tag})  # fmt: skip
            self._tag = done["e_tag"]
        except (AlreadyExistsError, PreconditionError):
            # Perhaps by ourselves: the answer was lost and the put tried again.
            found, tag = _read(self._files)
            if found != content:
                self._sure_until = 0.0
                return False
            self._tag = tag
        self._sure_until = began + self._seconds * 2 / 3
        return True


def _read(files: ObjectStore) -> tuple[dict[str, Any] | None, str | None]:
    """Return the lease and its tag; None if there was never one."""
    try:
        found = obstore.get(files, _KEY)
        return json.loads(bytes(found.bytes())), found.meta["e_tag"]
    except (NotFoundError, FileNotFoundError):
        return None, None


def _is_held(files: ObjectStore) -> bool:
    """Return whether somebody has the lease, by the time of its last renewal.

    That is the server's time against this machine's: enough to show states, not to commit.
    """
    content, _ = _read(files)
    if _is_free(content):
        return False
    age = datetime.now(UTC) - obstore.head(files, _KEY)["last_modified"]
    return age.total_seconds() < LEASE_SECONDS


def _is_free(content: dict[str, Any] | None) -> bool:
    return content is None or content["holder"] == ""


def _taken(name: str, timeout: float, content: dict[str, Any] | None = None) -> TimeoutError:
    by = f" ({content['host']}, process {content['pid']})" if content else ""
    return TimeoutError(
        f"another build{by} has been committing to {name} for {timeout:g} s; "
        f"wait for it to end, or stop it, and start this one again"
    )
