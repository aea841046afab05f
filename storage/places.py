"""Where a set of shards lies, a folder or a prefix of a bucket: files, each whole or not there.

What is being written to a folder lies in its `.unfinished/` until it is whole; a bucket shows
nothing of an upload that has not ended.
"""

import functools
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import obstore
from filelock import FileLock, Timeout
from obstore.exceptions import NotFoundError
from obstore.store import ObjectStore

from storage.location import files_at, local_path
from storage.lock import Held, lease
from storage.schema import SchemaError

UNFINISHED = ".unfinished"
_PART_BYTES = 8 * 2**20
_UPLOADS = 2
"""Parts of one object under way at a time; with one more being filled, what an upload holds."""
_COPY_BYTES = 5 * 10**9
"""Of S3's CopyObject: a larger object has to be sent again."""


class Sink:
    """A file in the making: what was written, counted and hashed.

    Args:
        file: Takes the bytes.
    """

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def tell(self) -> int:
        """Return how many bytes there are."""
        return self.bytes

    def flush(self) -> None:
        """Do nothing, nor in `close`: the place does both when the file is whole."""

    close = flush

    @property
    def sha256(self) -> str:
        """Digest of what has been written so far."""
        return self._digest.hexdigest()


class Place(Protocol):
    """Named files of one set."""

    def names(self) -> list[str]:
        """Return all files, none if there is no such place, sorted."""

    def size(self, name: str) -> int | None:
        """Return a file's bytes, None if it is not there."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a file's bytes, or some of them."""

    def stream(self, name: str, *, cold: bool = False) -> Iterator[bytes]:
        """Yield a file's bytes, some MB at a time; `cold`: not what memory has of them."""

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """Write a file, which is there when the context ends without an error."""
        yield Sink(io.BytesIO())

    def take(self, name: str, other: "Place", theirs: str) -> None:
        """Make a file of another place one of this, without its bytes passing if that can be."""

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    @contextmanager
    def guard(self) -> Iterator[Held]:
        """Be the only one who writes here."""
        yield Held()


@dataclass(frozen=True)
class Folder:
    """A place on a local disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        if not self.root.exists():
            return []
        files = (path for path in self.root.rglob("*") if not path.is_dir() or path.is_symlink())
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def size(self, name: str) -> int | None:
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def stream(self, name: str, *, cold: bool = False) -> Iterator[bytes]:
        with (self.root / name).open("rb") as file:
            if cold and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while part := file.read(_PART_BYTES):
                yield part

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        partial = self._partial()
        try:
            with partial.open("wb") as file:
                yield Sink(file)
                file.flush()
                os.fsync(file.fileno())
            self._name(partial, name)
        finally:
            partial.unlink(missing_ok=True)

    def take(self, name: str, other: Place, theirs: str) -> None:
        partial = self._partial()
        if isinstance(other, Folder):
            try:
                os.link(other.root / theirs, partial)
                self._name(partial, name)
                return
            except OSError:  # another disk, or one without links
                pass
            finally:
                partial.unlink(missing_ok=True)
        _copy(self, name, other, theirs)

    def remove(self, name: str) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        while path.parent != self.root:
            path = path.parent
            try:
                path.rmdir()
            except OSError:  # it is not empty
                return

    @contextmanager
    def guard(self) -> Iterator[Held]:
        folder = self.root / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise SchemaError(
                f"{self.root} must be written by one process, got a second one; wait for the other "
                "to end, or stop it"
            ) from error
        try:
            yield Held()
        finally:
            lock.release()

    def _partial(self) -> Path:
        folder = self.root / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own: a process of a run that was cut off may still be at work on the same.
        return folder / f"{uuid.uuid4().hex}.tmp"

    def _name(self, partial: Path, name: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True)
class Bucket:
    """A place in an object store, `s3://bucket/prefix`."""

    url: str

    def __str__(self) -> str:
        return self.url

    def names(self) -> list[str]:
        return sorted(entry["path"] for batch in self._files.list() for entry in batch)

    def size(self, name: str) -> int | None:
        try:
            return int(self._files.head(name)["size"])
        except (NotFoundError, FileNotFoundError):
            return None

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if length is None:
            return bytes(self._files.get(name).bytes())[start:]
        return bytes(self._files.get_range(name, start=start, length=length)) if length else b""

    def stream(self, name: str, *, cold: bool = False) -> Iterator[bytes]:
        for part in self._files.get(name).stream(min_chunk_size=_PART_BYTES):
            yield bytes(part)

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        with obstore.open_writer(
            self._files, name, buffer_size=_PART_BYTES, max_concurrency=_UPLOADS
        ) as file:
            yield Sink(file)

    def take(self, name: str, other: Place, theirs: str) -> None:
        mine, its = urlsplit(self.url), urlsplit(str(other))
        small = (other.size(theirs) or 0) <= _COPY_BYTES
        if isinstance(other, Bucket) and mine.netloc == its.netloc and small:
            places = (f"{url.path.strip('/')}/{key}" for url, key in ((its, theirs), (mine, name)))
            files_at(f"s3://{mine.netloc}").copy(*(place.lstrip("/") for place in places))
        else:
            _copy(self, name, other, theirs)

    def remove(self, name: str) -> None:
        with suppress(NotFoundError, FileNotFoundError):
            self._files.delete(name)

    @contextmanager
    def guard(self) -> Iterator[Held]:
        with lease(_connect(f"{self.url}/{UNFINISHED}"), self.url) as held:
            yield held

    @property
    def _files(self) -> ObjectStore:
        return _connect(self.url)


def place_of(out: Path | str) -> Place:
    """Return the place that a folder or `s3://bucket/prefix` names; nothing is made yet.

    Raises:
        SchemaError: A URL of another kind.
    """
    if "://" not in str(out):
        return Folder(Path(out))
    folder = local_path(str(out))
    if folder is not None:
        return Folder(folder)
    files_at(str(out))  # refuses what it cannot open
    return Bucket(str(out).rstrip("/"))


def digest(place: Place, name: str, *, cold: bool = False) -> str:
    """Return the sha256 of a file, read again; `cold`: not what memory has of it."""
    found = hashlib.sha256()
    for part in place.stream(name, cold=cold):
        found.update(part)
    return found.hexdigest()


def put(place: Place, name: str, data: bytes) -> dict[str, Any]:
    """Write a small file; return its `name`, `bytes` and `sha256`."""
    with place.writing(name) as sink:
        sink.write(data)
    return {"name": name, "bytes": sink.bytes, "sha256": sink.sha256}


def _copy(place: Place, name: str, other: Place, theirs: str) -> None:
    with place.writing(name) as sink:
        for part in other.stream(theirs):
            sink.write(part)


@functools.cache
def _connect(url: str) -> ObjectStore:
    return files_at(url)
