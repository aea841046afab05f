"""Where a store is: a local folder or an object store's URL, with keys from the environment.

The only module that reads endpoints and secrets; they never enter a config, a message or a store.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import icechunk
from obstore.store import LocalStore, ObjectStore, S3Store

from storage.schema import SchemaError

if TYPE_CHECKING:
    from obstore.store import S3Config  # of its type stubs alone

type Location = str | Path

SCENE_NODES = 32
"""Nearly twice the groups and arrays of a scene; a scene of before columns lay side by side has so
many."""
MANY_SCENES = 2**16
RETRY_SECONDS = 60
"""How long a request to an object store is tried again before it fails."""

# Icechunk warns at every opening that a local folder is not safe for concurrent commits, to
# stderr and past `logging`. `commit_lock` is our answer; ICECHUNK_LOG=warn shows it again.
if "ICECHUNK_LOG" not in os.environ:
    icechunk.set_logs_filter("error")


def local_path(location: Location) -> Path | None:
    """Return the folder that `location` names, None if it is in an object store."""
    text = str(location)
    if "://" not in text:
        return Path(location).resolve()
    parts = urlsplit(text)
    return Path(parts.path).resolve() if parts.scheme == "file" else None


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
    bucket, prefix = _bucket(location)
    endpoint = _endpoint()
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=_region(),
        endpoint_url=endpoint,
        allow_http=_plain_http(endpoint),
        # Servers other than Amazon's have no host name for each bucket.
        force_path_style=endpoint is not None,
        from_env=True,
    )


def repository_config(scenes: int = MANY_SCENES) -> icechunk.RepositoryConfig:
    """Return how long requests are tried again, and how much of the store's lists is remembered.

    A store that is down fails a build in minutes. Icechunk lists all nodes of a version in one
    object, and each checkpoint makes it anew. By default so many of them are kept that a build's
    memory grows with its checkpoints; where not even one fits, each array that is read reads it
    again. Compressing it harder costs time at each commit and saves little (measured: one part in
    twenty of its bytes).

    Args:
        scenes: How many the store will have.
    """
    retries = icechunk.StorageRetriesSettings(
        max_tries=8, initial_backoff_ms=100, max_backoff_ms=10_000
    )
    return icechunk.RepositoryConfig(
        storage=icechunk.StorageSettings(retries=retries),
        caching=icechunk.CachingConfig(num_snapshot_nodes=SCENE_NODES * (scenes + 100)),
        # Of coordinates, which our readers read once or never.
        manifest=icechunk.ManifestConfig(
            preload=icechunk.ManifestPreloadConfig(
                max_total_refs=0, preload_if=icechunk.ManifestPreloadCondition.false()
            )
        ),
        compression=icechunk.CompressionConfig(level=1),
    )


def files_beside(location: Location, suffix: str) -> ObjectStore:
    """Return where small files beside a store are, `<location>.<suffix>/`: a folder or a prefix.

    Raises:
        SchemaError: A URL of another kind, or one without bucket or prefix.
    """
    folder = local_path(location)
    if folder is not None:
        return LocalStore(folder.with_name(f"{folder.name}.{suffix}"), mkdir=True)
    bucket, prefix = _bucket(location)
    return _s3(bucket, f"{prefix}.{suffix}")


def files_at(url: str) -> ObjectStore:
    """Return the files of a bucket below `s3://bucket` or `s3://bucket/prefix`.

    Raises:
        SchemaError: A URL of another kind.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.hostname or _has_keys(url):
        raise SchemaError(
            f"a bucket must be s3://bucket or s3://bucket/prefix without keys, got {_masked(url)}"
        )
    return _s3(parts.netloc, parts.path.strip("/") or None)


def _s3(bucket: str, prefix: str | None) -> S3Store:
    endpoint, region = _endpoint(), _region()
    config: S3Config = {"virtual_hosted_style_request": False}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    return S3Store(
        bucket,
        prefix=prefix,
        config=config,
        client_options={"allow_http": _plain_http(endpoint)},
        retry_config={"max_retries": 8, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )


def _bucket(location: Location) -> tuple[str, str]:
    parts = urlsplit(str(location))
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not parts.hostname or not prefix or _has_keys(str(location)):
        raise SchemaError(
            "a store must be a folder or s3://bucket/prefix without keys, got "
            f"{_masked(str(location))}"
        )
    return parts.netloc, prefix


def _has_keys(url: str) -> bool:
    # Secrets have slashes: what comes before an @ may look like a bucket and a prefix.
    return "@" in url or ":" in url.partition("://")[2]


def _masked(url: str) -> str:
    before, _, _ = url.partition("://")
    return f"{before}://***" if _has_keys(url) else url


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def _plain_http(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith("http://")
