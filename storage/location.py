"""Where a store is: a local folder or an object store's URL, with keys from the environment.

The only module that reads endpoints and secrets; they never enter a config, a message or a store.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import icechunk
from filelock import FileLock, Timeout

from storage.schema import SchemaError

type Location = str | Path

LOCK_TIMEOUT = 600.0

# Icechunk warns at every opening that a local folder is not safe for concurrent commits, to
# stderr and past `logging`. `commit_lock` is our answer; ICECHUNK_LOG=warn shows it again.
if "ICECHUNK_LOG" not in os.environ:
    icechunk.set_logs_filter("error")


def local_path(location: Location) -> Path | None:
    """Return the folder that `location` names, None if it is in an object store."""
    text = str(location)
    if "://" not in text:
        return Path(location).absolute()
    parts = urlsplit(text)
    return Path(parts.path) if parts.scheme == "file" else None


def icechunk_storage(location: Location) -> icechunk.Storage:
    """Return Icechunk's storage for a folder or `s3://bucket/prefix`.

    An object store's keys, region and endpoint are those of the AWS tools: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL.

    Raises:
        SchemaError: A URL of another kind, or one without bucket or prefix.
    """
    folder = local_path(location)
    if folder is not None:
        return icechunk.local_filesystem_storage(str(folder))
    parts = urlsplit(str(location))
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not parts.hostname or not prefix or "@" in parts.netloc:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise SchemaError(f"a store must be a folder or s3://bucket/prefix, got {shown}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=parts.netloc,
        prefix=prefix,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        # Servers other than Amazon's have no host name for each bucket.
        force_path_style=endpoint is not None,
        from_env=True,
    )


@contextmanager
def commit_lock(location: Location, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Be the only committer of a store, from `begin` to the end of `commit_version`.

    A local folder is guarded by a lock file beside it, freed by the system if its holder dies.
    An object store needs none: there a commit is a conditional put, and the slower one fails.

    Args:
        location: The store.
        timeout: Seconds to wait for another committer.

    Raises:
        TimeoutError: Another process kept the lock for longer than `timeout`.
    """
    folder = local_path(location)
    if folder is None:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=timeout)
    try:
        lock.acquire()
    except Timeout as error:
        raise TimeoutError(
            f"another build has been committing to {folder} for {timeout:g} s; "
            f"wait for it to end, or stop it, and start this one again"
        ) from error
    try:
        yield
    finally:
        lock.release()
