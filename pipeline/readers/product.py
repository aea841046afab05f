"""A raw product as delivered: a folder or an archive, listed and checked, never unpacked.

Members are read where they lie: text by Python's own zip and tar readers, rasters by GDAL through
`/vsizip/` and, at the place that a tar's list gives, through `/vsisubfile/` and `/vsigzip/`. Only
what GDAL cannot read (all of a tar.xz, and HDF4) is copied out of an archive, into a temporary
file without a name, which the system removes with the process even if that crashes.
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from pipeline.readers.gunzip import Checkpoints
from pipeline.readers.listing import (
    TEXT_LIMIT,
    Member,
    check_count,
    check_size,
    damage_reported,
    refuse,
)
from pipeline.readers.tars import Unpacked, list_tar
from pipeline.readers.zips import list_zip
from storage.schema import SceneError

__all__ = ["ARCHIVE_SUFFIX", "Member", "Product", "open_product"]

ARCHIVE_SUFFIX = re.compile(r"(?i)\.(zip|tar|tgz|txz|tar\.gz|tar\.xz)$")
_DEPTH = 3
"""Folder levels below the product's own that are looked into."""


@dataclass(frozen=True)
class Product:
    """A folder or archive and what is in it."""

    path: Path
    kind: Literal["folder", "zip", "tar", "tgz", "txz"]
    members: tuple[Member, ...]
    """In the archive's order; a folder's sorted."""
    sha256: str
    """Of the archive file; of a folder empty."""
    texts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """A tar's small text members, kept since each look into a tgz unpacks all of it."""
    unpacked: Unpacked | None = field(default=None, repr=False)
    """Of a tar.xz."""
    checkpoints: Checkpoints | None = field(default=None, repr=False)
    """Of a tgz."""

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
        if self.unpacked is not None:
            return f"{part}/dev/fd/{self.unpacked.file().fileno()}"
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
        if member.size > TEXT_LIMIT:
            raise SceneError(
                where, expected=f"a text file of at most {TEXT_LIMIT} bytes",
                got=f"{member.size} bytes", todo="check that this is the product's own file",
            )  # fmt: skip
        if member.name in self.texts:
            return self.texts[member.name]
        with damage_reported(where, "a readable file"):
            return b"".join(content.read() for _, content in self._streams({member.name}))

    def files(self, members: Iterable[Member]) -> dict[str, tuple[IO[bytes], int]]:
        """Return, by member, a file that `os.pread` reads it from and its first byte in there.

        Members of a zip or tgz are copied, in one pass, to temporary files that have no name.

        Raises:
            SceneError: The archive is damaged.
        """
        with damage_reported(self.path, "whole members"), ExitStack() as opened:
            found = {
                name: (opened.enter_context(file), start)
                for name, file, start in self._files(list(members))
            }
            opened.pop_all()
            return found

    def _files(self, members: list[Member]) -> Iterator[tuple[str, IO[bytes], int]]:
        if self.kind in ("zip", "tgz"):
            for name, content in self._streams({member.name for member in members}):
                file = tempfile.TemporaryFile()  # noqa: SIM115  (lives with the reader)
                yield name, file, 0
                shutil.copyfileobj(content, file, 2**20)
                file.flush()
            return
        for member in members:
            if self.unpacked is not None:
                tar = os.fdopen(os.dup(self.unpacked.file().fileno()), "rb")
                yield member.name, tar, member.offset
            elif self.kind == "tar":
                yield member.name, self.path.open("rb"), member.offset
            else:
                yield member.name, (self.path / member.name).open("rb"), 0

    def stream(self, members: Iterable[Member]) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of members of a tar, in one pass from its start.

        Raises:
            SceneError: The archive is damaged, or a member empty.
        """
        names = {member.name for member in members}
        with damage_reported(self.path, "whole members"):
            for name, content in self._streams(names):
                names.remove(name)
                data = content.read()
                if not data:
                    raise EOFError(f"{name} is empty")
                yield name, data
                if not names:
                    return

    def sources(self, used: Iterable[Member]) -> list[dict[str, str | int]]:
        """Return name, bytes and sha256 of what was read: the archive, or a folder's files."""
        if self.kind != "folder":
            size = self.path.stat().st_size
            return [{"name": self.path.name, "bytes": size, "sha256": self.sha256}]
        return [file_source(self.path / m.name) | {"name": m.name} for m in used]

    def _streams(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        if self.kind == "folder":
            for name in sorted(names):
                with (self.path / name).open("rb") as content:
                    yield name, content
        elif self.kind == "zip":
            with zipfile.ZipFile(self.path) as archive:
                for name in sorted(names):
                    with archive.open(name) as content:
                        yield name, content
        else:
            with tarfile.open(self.path, "r|*") as tar:
                for info in tar:
                    if info.name in names and (stream := tar.extractfile(info)) is not None:
                        yield info.name, stream


def file_source(path: Path) -> dict[str, str | int]:
    """Return name, bytes and sha256 of a file."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}


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
            path, expected="a product folder, or an archive .zip, .tar, .tgz, .tar.gz, .txz or "
                           ".tar.xz",
            got=f"a file *{path.suffix}", todo="give the product as it was delivered",
        )  # fmt: skip
    with damage_reported(path, f"a whole {match[0].lower()} archive"):
        if match[1].lower() == "zip":
            return Product(path, "zip", tuple(list_zip(path)), _sha256(path))
        found = list_tar(path)
    return Product(path, found.packing, tuple(found.members), found.sha256, found.texts,
                   found.unpacked, found.checkpoints)  # fmt: skip


def _list_folder(folder: Path) -> Iterator[Member]:
    root = folder.resolve()
    for count, path in enumerate(sorted(folder.rglob("*"))):
        name = path.relative_to(folder).as_posix()
        if name.count("/") > _DEPTH or not path.is_file() or path.name.startswith("._"):
            continue
        check_count(folder, count)
        if not path.resolve().is_relative_to(root):
            refuse(folder, name, f"a link to {path.resolve()}")
        check_size(path, path.stat().st_size)
        yield Member(name, path.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
