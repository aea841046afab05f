"""Where products come from: a folder, or a bucket, whose archives are fetched to be worked on.

A bucket is only listed to plan a build: names, sizes and times of change. An archive is fetched
whole into a folder of its own, which goes when the work on it ends.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError

from pipeline import readers
from pipeline.states import look_of as look_of_path
from storage.location import files_at

_OURS = "hypersigma-fetch-"
_LEFT_SECONDS = 24 * 3600
"""A folder that is older was left by a process that was killed."""
_READ_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Remote:
    """An archive in a bucket."""

    url: str
    """Of the folder that it lies in, `s3://bucket/prefix`."""
    name: str
    look: tuple[int, int]
    """Bytes and time of change [ns], as listed."""
    etag: str | None
    cache: Path

    def __str__(self) -> str:
        return f"{self.url.rstrip('/')}/{self.name}"


type Product = Path | Remote
"""Both have a `name`."""


def find_products(source: str | Path, cache: Path | None = None) -> list[Product]:
    """Return the raw products at `source`, sorted by their names; opens and fetches none.

    Args:
        source: A folder or a product (see `readers.find_scenes`), or `s3://bucket/prefix`, of
            which the archives directly below it are products.
        cache: Folder for archives while they are worked on; None: the system's temporary one.

    Raises:
        FileNotFoundError: There is nothing at `source`.
        OSError: The bucket cannot be listed.
    """
    if not str(source).startswith("s3://"):
        return list(readers.find_scenes(source))
    folder = cache or Path(tempfile.gettempdir())
    try:
        listed = obstore.list_with_delimiter(files_at(str(source)))["objects"]
    except BaseError as error:
        raise OSError(f"{source} cannot be listed: {error}") from error
    if not listed:
        raise FileNotFoundError(f"no raw products at {source}: nothing has this prefix")
    found = []
    for entry in listed:
        name = entry["path"].rpartition("/")[2]
        if readers.is_archive(name) and not name.startswith("."):
            changed = int(entry["last_modified"].timestamp() * 1e9)
            look = entry["size"], changed
            found.append(Remote(str(source), name, look, entry["e_tag"], folder))
    return sorted(found, key=lambda product: product.name)


def look_of(product: Product) -> tuple[int, int]:
    """Return bytes and newest change [ns] of a product."""
    return product.look if isinstance(product, Remote) else look_of_path(product)


@contextmanager
def local(product: Product) -> Iterator[Path]:
    """Yield the product as a file or folder here; what was fetched for it goes afterwards.

    Raises:
        OSError: It cannot be fetched whole, or is not what was listed; or the disk is too full.
    """
    if not isinstance(product, Remote):
        yield product
        return
    product.cache.mkdir(parents=True, exist_ok=True)
    _sweep(product.cache)
    with tempfile.TemporaryDirectory(prefix=_OURS, dir=product.cache) as folder:
        path = Path(folder) / product.name
        _fetch(product, path)
        yield path


def _fetch(product: Remote, path: Path) -> None:
    size, _ = product.look
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(
            f"{product} has {size / 1e9:.2f} GB, but {product.cache} has {free / 1e9:.2f} GB left: "
            "make room, or set `cache` to another folder"
        )
    try:
        got = obstore.get(files_at(product.url), product.name)
        with path.open("wb") as file:
            for part in got.stream(min_chunk_size=_READ_BYTES):
                file.write(part)
    except (BaseError, FileNotFoundError) as error:
        raise OSError(f"{product} cannot be fetched: {error}") from error
    have = path.stat().st_size
    if (have, got.meta["e_tag"]) != (size, product.etag):
        raise OSError(
            f"{product} changed while it was fetched, or did not come whole: listed as {size} "
            f"bytes, got {have}; the next build takes it as it is then"
        )


def _sweep(cache: Path) -> None:
    """Remove what killed processes left."""
    for folder in cache.glob(f"{_OURS}*"):
        try:
            if time.time() - folder.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:  # another process was here first
            continue
