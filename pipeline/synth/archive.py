"""Archives and folders whose bytes depend on nothing but their content."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

type Members = Iterable[tuple[str, bytes]]
"""Names (with folders) and contents, in the archive's order."""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Lend a temporary name beside `path`; what is there at the end takes the place of `path`."""
    part = path.with_name(f".{path.name}.part")
    _remove(part)
    try:
        yield part
        _remove(path)
        part.rename(path)
    finally:
        _remove(part)


def write_zip(path: Path, members: Members, when: datetime) -> None:
    """Write a ZIP archive with all dates set to `when`."""
    with staged(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, when.timetuple()[:6])
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, compresslevel=1)


def write_tgz(path: Path, members: Members, when: datetime) -> None:
    """Write a gzip-compressed tar archive with all dates set to `when` and owner root."""
    with (
        staged(path) as part,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        folders: set[str] = set()
        for name, content in members:
            folder, _, _ = name.rpartition("/")
            if folder and folder not in folders:
                folders.add(folder)
                archive.addfile(_tar_info(folder, 0, when, directory=True))
            archive.addfile(_tar_info(name, len(content), when), io.BytesIO(content))


def write_folder(path: Path, members: Members) -> None:
    """Write the members as files of the folder `path`; their own folders are left out."""
    with staged(path) as part:
        part.mkdir()
        for name, content in members:
            (part / name.rpartition("/")[2]).write_bytes(content)


def _tar_info(name: str, size: int, when: datetime, *, directory: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = int(when.timestamp())
    info.uname = info.gname = "root"
    info.mode = 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return info


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
