"""A raw product as delivered: a folder or an archive, listed and checked, never unpacked.

Members are read where they lie: text by Python's own zip and tar readers, rasters by GDAL through
`/vsizip/` and, at the place that a tar's list gives, through `/vsisubfile/` and `/vsigzip/`. Only
what GDAL cannot read (HDF4) is copied out of an archive, into a temporary file without a name,
which the system removes with the process even if that crashes.
"""

import errno
import gzip
import hashlib
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from storage.schema import SceneError

ARCHIVE_SUFFIX = re.compile(r"(?i)\.(zip|tar|tgz|tar\.gz)$")
_TEXT = re.compile(r"(?i)MTL|\.(met|xml|rpb|raw|hdr|txt)$")
_TEXT_LIMIT = 2**20
"""Bytes; the longest text file of the known products has 16 kB."""
_DEPTH = 3
"""Folder levels below the product's own that are looked into."""
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError)
_OUR_MACHINE = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)
_FETCH_AGAIN = "the archive is damaged or cut short: fetch it again"


@dataclass(frozen=True)
class Member:
    """One file of a product."""

    name: str
    """Path inside the folder or archive, with `/`."""
    size: int
    """Bytes, unpacked."""
    offset: int = 0
    """First byte in the unpacked tar."""

    @property
    def basename(self) -> str:
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Product:
    """A folder or archive and what is in it."""

    path: Path
    kind: Literal["folder", "zip", "tar", "tgz"]
    members: tuple[Member, ...]
    """In the archive's order; a folder's sorted."""
    sha256: str
    """Of the archive file; of a folder empty."""
    texts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """A tar's small text members, kept since each look into a tgz unpacks all of it."""

    def find(self, pattern: str) -> list[Member]:
        """Return the members whose base name matches `pattern` wholly, whatever the case."""
        wanted = re.compile(pattern, re.IGNORECASE)
        return [member for member in self.members if wanted.fullmatch(member.basename)]

    def where(self, member: Member) -> str:
        """Return how messages and `sources` name a member."""
        return str(self.path / member.name)

    def gdal_path(self, member: Member) -> str:
        """Return the name under which GDAL opens a member."""
        path = str(self.path.resolve())
        # Not /vsitar/: it would unpack a tgz once more to list it, and goes by the file's suffix.
        part = f"/vsisubfile/{member.offset}_{member.size},"
        return {
            "folder": f"{path}/{member.name}",
            "zip": f"/vsizip/{{{path}}}/{member.name}",
            "tar": f"{part}{path}",
            "tgz": f"{part}/vsigzip/{path}",
        }[self.kind]

    def read(self, member: Member) -> bytes:
        """Return the content of a text member.

        Raises:
            SceneError: It is too long to be one, or damaged.
        """
        where = self.where(member)
        if member.size > _TEXT_LIMIT:
            raise SceneError(
                where, expected=f"a text file of at most {_TEXT_LIMIT} bytes",
                got=f"{member.size} bytes", todo="check that this is the product's own file",
            )  # fmt: skip
        if self.kind in ("tar", "tgz"):
            return self.texts[member.name]
        with _damage_reported(where, "a readable file"):
            if self.kind == "zip":
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(member.name)
            return (self.path / member.name).read_bytes()

    def spool(self, members: Iterable[Member]) -> dict[str, IO[bytes]]:
        """Copy members of an archive, in one pass, to temporary files that have no name."""
        names = {member.name for member in members}
        files: dict[str, IO[bytes]] = {}
        with _damage_reported(self.path, "whole members"):
            for name, content in self._streams(names):
                files[name] = tempfile.TemporaryFile()  # noqa: SIM115  (lives with the reader)
                shutil.copyfileobj(content, files[name], 2**20)
                files[name].flush()
        return files

    def stream(self, members: Iterable[Member]) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of members of a tar, in one pass from its start."""
        names = {member.name for member in members}
        with _damage_reported(self.path, "whole members"):
            for name, content in self._streams(names):
                names.remove(name)
                yield name, content.read()
                if not names:
                    return

    def sources(self, used: Iterable[Member]) -> list[dict[str, str | int]]:
        """Return name, bytes and sha256 of what was read: the archive, or a folder's files."""
        if self.kind != "folder":
            size = self.path.stat().st_size
            return [{"name": self.path.name, "bytes": size, "sha256": self.sha256}]
        return [
            {"name": m.name, "bytes": m.size, "sha256": _sha256(self.path / m.name)} for m in used
        ]

    def _streams(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as archive:
                for name in sorted(names):
                    with archive.open(name) as content:
                        yield name, content
            return
        with tarfile.open(self.path, "r|*") as tar:
            for info in tar:
                if info.name in names and (stream := tar.extractfile(info)) is not None:
                    yield info.name, stream


def open_product(path: Path) -> Product:
    """List a folder or an archive, and hash an archive, in one pass over it.

    Raises:
        SceneError: There is nothing, the archive is damaged or of an unknown kind, or a member
            would lead out of its folder.
    """
    if path.is_dir():
        return Product(path, "folder", tuple(_list_folder(path)), "")
    if not path.is_file():
        raise SceneError(
            path, expected="a product folder or archive", got="nothing there",
            todo="check the path",
        )  # fmt: skip
    match = ARCHIVE_SUFFIX.search(path.name)
    if match is None:
        raise SceneError(
            path, expected="a product folder, or an archive .zip, .tar, .tgz or .tar.gz",
            got=f"a file *{path.suffix}", todo="give the product as it was delivered",
        )  # fmt: skip
    with _damage_reported(path, f"a whole {match[0].lower()} archive"):
        return _open_zip(path) if match[1].lower() == "zip" else _open_tar(path)


def _list_folder(folder: Path) -> Iterator[Member]:
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.count("/") > _DEPTH or not path.is_file() or path.name.startswith("._"):
            continue
        if not path.resolve().is_relative_to(root):
            _refuse(folder, name, f"a link to {path.resolve()}")
        yield Member(name, path.stat().st_size)


def _open_zip(path: Path) -> Product:
    members = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _checked_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                _refuse(path, name, "a link")
            if info.flag_bits & 1 or info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise SceneError(
                    path / name, expected="a member stored or deflated",
                    got="one encrypted or compressed otherwise", todo="pack the product again",
                )  # fmt: skip
            if not info.is_dir() and not name.rpartition("/")[2].startswith("._"):
                members.append(Member(name, info.file_size))
        # GDAL reads a damaged member without a word; tgz is checked while it is listed.
        if damaged := archive.testzip():
            raise SceneError(
                path / damaged, expected="the content that its checksum is of",
                got="other content", todo=_FETCH_AGAIN,
            )  # fmt: skip
    return Product(path, "zip", tuple(members), _sha256(path))


def _open_tar(path: Path) -> Product:
    members, texts = [], {}
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # Read to its very end, gzip checks its checksum; tarfile alone would stop before it.
        hashed: Any = _Hashed(file)
        content = gzip.GzipFile(fileobj=hashed) if packed else hashed
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for info in tar:
                name = _checked_name(path, info.name)
                if info.isdir():
                    continue
                if not info.isreg():
                    _refuse(path, name, "a link or special file")
                if PurePosixPath(name).name.startswith("._"):
                    continue
                members.append(Member(info.name, info.size, info.offset_data))
                text = _TEXT.search(name) and info.size <= _TEXT_LIMIT
                if text and (stream := tar.extractfile(info)) is not None:
                    texts[info.name] = stream.read()
        while content.read(2**20):
            pass
    kind: Literal["tar", "tgz"] = "tgz" if packed else "tar"
    return Product(path, kind, tuple(members), hashed.digest.hexdigest(), texts)


class _Hashed:
    """A file that hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


class _damage_reported:  # noqa: N801  (used like a function)
    """Turn what zip, tar and file readers raise on damaged files into a SceneError."""

    def __init__(self, where: object, expected: str) -> None:
        self.where = where
        self.expected = expected

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _OUR_MACHINE:
            return
        if isinstance(error, _DAMAGED):
            got = f"{type(error).__name__}: {error}"
            raise SceneError(
                self.where, expected=self.expected, got=got, todo=_FETCH_AGAIN
            ) from error


def _checked_name(archive: Path, name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        _refuse(archive, name, "a path that leads elsewhere")
    return name


def _refuse(where: Path, name: str, got: str) -> None:
    raise SceneError(
        f"{where}: member {name!r}", expected="a plain file inside the product's folder",
        got=got, todo="do not trust this product; fetch it again from its source",
    )  # fmt: skip


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
