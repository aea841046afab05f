"""Which arrays there are in folders and tar files, told without reading any of them."""

import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.shardtiles import Rejected

_ARRAYS = (".mat", ".npy")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LARGEST = 64 * 2**20
"""Bytes: 330 bands of float64 are 11 MB."""
_END = 2**20
"""Bytes of zeros that may follow the last member."""


@dataclass(frozen=True)
class Entry:
    """A file, or a member of a tar file, that should hold one tile."""

    source: str
    """The file, relative to the sources' folder."""
    member: str
    """Of a tar file; "" is none."""
    offset: int
    """Where its bytes begin in the file."""
    bytes: int
    name: str
    """Without folder and extensions."""

    def __str__(self) -> str:
        return where(self.source, self.member)


@dataclass
class Sources:
    """Files to be looked through, all below one folder."""

    root: Path
    paths: list[Path]
    member: str | None = None
    """Extension of a sample's array, such as `tile.npy`; None: the only one of `.npy` or `.mat`."""
    ignored: Counter[str] = field(default_factory=Counter)
    """By extension, what is no array."""

    def entries(self) -> Iterator[Entry | Rejected]:
        """Yield what there is, in the order of names, in a tar file in that of its members."""
        for path in self.paths:
            for file in _files(path) if path.is_dir() else [path]:
                name = file.relative_to(self.root).as_posix()
                suffix = file.suffix.lower()
                if file.is_symlink() and file.is_dir():
                    yield Rejected(name, "link", "expected files and folders, got a linked folder")
                elif suffix in (".tar", *_ARRAYS) and _leads_nowhere(file):
                    yield Rejected(name, "link", "expected a file, got a pipe or a link to nothing")
                elif suffix == ".tar":
                    yield from self._members(file, name)
                elif suffix in _ARRAYS:
                    entry = Entry(name, "", 0, file.stat().st_size, split_name(file.name)[0])
                    yield _not_large(entry)
                else:
                    self.ignored[suffix or "(none)"] += 1

    def _members(self, file: Path, name: str) -> Iterator[Entry | Rejected]:
        sample: list[Entry | Rejected] = []
        key = ""
        try:
            for info in _headers(file):
                found = self._member(name, info)
                if found is None:
                    continue
                new = _key(info.name)
                if new != key:
                    yield from _one(sample)
                    sample, key = [], new
                sample.append(found)
        except (tarfile.TarError, ValueError, ArithmeticError, EOFError) as error:
            yield from _one(sample)
            text = f"expected a whole tar file, what is behind is lost: {error}"
            yield Rejected(name, "archive", text)
        else:
            yield from _one(sample)

    def _member(self, name: str, info: tarfile.TarInfo) -> Entry | Rejected | None:
        """Return what a member is, None if it is no array."""
        if info.isdir():
            return None
        stem, extension = split_name(info.name.rpartition("/")[2])
        wanted = extension == self.member if self.member else f".{extension}".endswith(_ARRAYS)
        if not wanted:
            self.ignored[f".{extension}" if extension else "(none)"] += 1
            return None
        if not info.isreg() or info.issparse():
            return Rejected(where(name, info.name), "link", "expected a plain file, got another")
        return _not_large(Entry(name, info.name, info.offset_data, info.size, stem))


def open_sources(given: list[str], member: str | None = None) -> Sources:
    """Return folders and files by their names; `{000..009}` stands for numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file that is none of `.mat`, `.npy` and `.tar`, or no name at all.
    """
    paths = []
    for path in (Path(name) for text in given for name in _numbered(text)):
        if not path.exists():
            raise FileNotFoundError(f"{path}: expected a folder, a tar file or an array, got none")
        if path.is_file() and path.suffix.lower() not in (*_ARRAYS, ".tar"):
            raise ValueError(
                f"{path}: expected .tar, .mat or .npy, or a folder of them; unpack other archives"
            )
        paths.append(path)
    paths = [path.resolve() for path in paths]
    folders = {path for path in paths if path.is_dir()}
    paths = [path for path in dict.fromkeys(paths) if not folders & set(path.parents)]
    tops = [path if path.is_dir() else path.parent for path in paths]
    return Sources(Path(os.path.commonpath(tops)), sorted(paths), member)


def split_name(name: str) -> tuple[str, str]:
    """Return a file's name and its extensions; a dot before a digit begins none, as in E13.0."""
    stem, extension = name, ""
    while found := re.fullmatch(r"(.+)\.([A-Za-z]\w*)", stem):
        stem, extension = found[1], f"{found[2]}.{extension}" if extension else found[2]
    return stem, extension.lower()


def where(source: str, member: str) -> str:
    """Return how an input is named in words."""
    return f"{source}:{member}" if member else source


def _files(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):
        folders.sort()
        linked = [name for name in folders if Path(top, name).is_symlink()]
        for name in sorted([*files, *linked]):
            yield Path(top, name)


def _leads_nowhere(file: Path) -> bool:
    """Say whether it can never be read: a pipe would be waited for without end.

    Raises:
        FileNotFoundError: It is gone since it was listed.
    """
    if file.is_symlink() and not file.exists():
        return True
    return not stat.S_ISREG(file.stat().st_mode)


def _numbered(text: str) -> Iterator[str]:
    if not text:
        raise ValueError("expected a folder or a file, got an empty name; . is this folder")
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = found[1], found[2]
    if int(last) < int(first):
        raise ValueError(f"{text}: expected numbers that grow, got {found[0]}")
    for number in range(int(first), int(last) + 1):
        yield from _numbered(f"{text[: found.start()]}{number:0{len(first)}d}{text[found.end() :]}")


def _key(member: str) -> str:
    folder, _, name = member.rpartition("/")
    return f"{folder}/{split_name(name)[0]}"


def _one(sample: list[Entry | Rejected]) -> Iterator[Entry | Rejected]:
    """Yield the array of a sample, or why none of its arrays can be chosen."""
    if len(sample) < 2:
        yield from sample
        return
    for each in sample:
        text = f"expected one array a sample, got {len(sample)}; name it, as --member tile.npy"
        yield each if isinstance(each, Rejected) else Rejected(str(each), "several arrays", text)


def _not_large(entry: Entry) -> Entry | Rejected:
    if entry.bytes <= _LARGEST:
        return entry
    text = f"expected at most {_LARGEST} bytes for one tile, got {entry.bytes}"
    return Rejected(str(entry), "size", text)


def _headers(file: Path) -> Iterator[tarfile.TarInfo]:
    """Yield all members.

    Raises:
        tarfile.ReadError: Damage, at which tarfile itself would stop as at the end.
    """
    offset = -1
    with tarfile.open(file, "r:") as tar:
        while (info := tar.next()) is not None:
            if tar.offset <= offset:
                raise tarfile.ReadError(f"a member of {info.size} bytes")
            offset = tar.offset
            tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
            yield info
        offset = tar.offset
    with file.open("rb") as opened:
        opened.seek(offset)
        rest = opened.read(_END + 1)
    if any(rest) or len(rest) > _END:
        raise tarfile.ReadError(f"no header at byte {offset}, but no end")
