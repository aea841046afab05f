"""Tables of a set of shards, memory-mapped, so that all processes of a machine share one copy.

Files of a local set are taken where they are. What has to be fetched or unpacked first lies in
the cache folder, named by its sha256: made once, whole or not at all; what nobody asked for in a
month goes when something new comes.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from obstore.exceptions import BaseError, NotFoundError

from storage.requests import connect
from storage.schema import SchemaError

MAPPED_ROWS = 100_000
"""A table with more rows is unpacked and mapped; a smaller one is held in memory."""
_PART_BYTES = 8 * 2**20
_UNUSED_SECONDS = 30 * 86_400.0


def cache_folder() -> Path:
    """Return where this machine keeps what can be made again: HYPERSIGMA_CACHE, or the user's."""
    if named := os.environ.get("HYPERSIGMA_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hypersigma"


def content(root: Path | str, name: str) -> bytes | None:
    """Return a small file of a set, None if it is not there.

    Raises:
        SchemaError: The bucket does not answer.
    """
    if "://" not in str(root):
        path = Path(root, name)
        return path.read_bytes() if path.is_file() else None
    with _told(f"{root}/{name}"):
        try:
            return bytes(obstore.get(connect(str(root)), name).bytes())
        except (NotFoundError, FileNotFoundError):
            return None


def sizes_of(root: Path | str) -> Callable[[str], int | None]:
    """Return what tells a file's size [B], None if it is not there; of a bucket by one listing.

    Raises:
        SchemaError: The bucket does not answer.
    """
    if "://" not in str(root):

        def size(name: str) -> int | None:
            path = Path(root, name)
            return path.stat().st_size if path.is_file() else None

        return size
    with _told(str(root)):
        pages = obstore.list(connect(str(root)))
        return {entry["path"]: int(entry["size"]) for page in pages for entry in page}.get


def near(root: Path | str, entry: dict[str, Any]) -> Path:
    """Return a file of a set as one of this machine, fetched if the set lies in a bucket.

    Args:
        root: The set.
        entry: Of the manifest, with `name`, `bytes` and `sha256`.

    Raises:
        SchemaError: It is not there, or not what the manifest says.
    """
    if "://" not in str(root):
        return Path(root, str(entry["name"]))

    def fetch(path: Path) -> None:
        with path.open("wb") as file:
            for part in _parts(root, str(entry["name"])):
                file.write(part)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise SchemaError(
                f"{root}/{entry['name']} must have the manifest's sha256, got {found}: damaged; "
                "write the set again with `hypersigma-data shards`"
            )

    return _made(entry["sha256"] + Path(entry["name"]).suffix, fetch)


def mapped_table(file: Path, sha256: str) -> pa.Table:
    """Return a Parquet file as a table in one piece; a long one memory-mapped.

    Args:
        file: On this machine.
        sha256: Of its bytes.
    """
    rows = pq.read_metadata(file).num_rows
    if rows <= MAPPED_ROWS:
        return pq.read_table(file).combine_chunks()

    def unpack(path: Path) -> None:
        table = pq.read_table(file).combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    source = pa.memory_map(str(_made(f"{sha256}.arrow", unpack)))
    return pa.ipc.open_file(source).read_all()


def _parts(root: Path | str, name: str) -> Iterator[bytes]:
    """Yield an object's bytes, some MB at a time."""
    with _told(f"{root}/{name}"):
        got = obstore.get(connect(str(root)), name)
        for part in got.stream(min_chunk_size=_PART_BYTES):
            yield bytes(part)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise SchemaError(f"{what} cannot be fetched: {error}") from error


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file of the cache; the first process that asks makes it, the others wait."""
    folder = cache_folder() / "tables"
    path = folder / name
    if path.exists():
        with suppress(OSError):  # it is another user's
            os.utime(path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if not path.exists():
            part = folder / f"{name}.{uuid.uuid4().hex}.part"
            try:
                make(part)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    _sweep(folder)
    return path


def _sweep(folder: Path) -> None:
    """Remove what was not asked for in a long time; who has it mapped keeps it."""
    for entry in folder.iterdir():
        with suppress(OSError):  # another process was first, or it is another user's
            if time.time() - entry.stat().st_mtime > _UNUSED_SECONDS:
                entry.unlink()
