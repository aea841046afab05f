"""Payloads of a bucket's tiles, kept on this machine's disk for all processes.

One file a payload, at its name when it is whole, with a checksum at its end; those that were read
least recently go when there are too many. A process that is killed leaves at most a temporary file,
which the next sweep removes.
"""

import hashlib
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

DEFAULT_BYTES = 50 * 10**9
_CHECK = 8
_PART = ".part"
_REMEMBERED = 100_000
_LEFT_SECONDS = 3600
"""A temporary file that is older was left by a process that was killed."""


class Payloads:
    """A folder of payloads, safe to use from many processes and threads.

    Args:
        folder: On a local disk, for this alone; made if it is not there.
        most: Bytes that may lie there. They are counted when a tenth has been added since: so it
            may be a tenth more for each process.
    """

    def __init__(self, folder: Path | str, most: int = DEFAULT_BYTES) -> None:
        self.folder, self.most = Path(folder), most
        self._added = most  # so that the first one sweeps what others left
        self._checked: set[str] = set()

    def __reduce__(self) -> tuple[object, ...]:
        return Payloads, (self.folder, self.most)

    def read(self, key: str, payload: tuple[int, int], start: int, into: memoryview) -> bool:
        """Fill `into` from byte `start` of a payload on; return whether it is here.

        A file that is not what was written is removed.
        """
        path = self._path(key, payload)
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:  # not there, or the disk is away: the bucket has it
            return False
        try:
            if path.name not in self._checked:
                if not _is_whole(file, payload[1]):
                    path.unlink(missing_ok=True)
                    return False
                self._note(path.name)
            done = 0
            while done < len(into):
                got = os.preadv(file, [into[done:]], start + done)
                if not got:
                    return False
                done += got
            os.utime(file)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def keep(self, key: str, payload: tuple[int, int], whole: memoryview) -> None:
        """Keep a payload; a full or missing disk is no error."""
        path = self._path(key, payload)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(whole)
                file.write(_digest(whole))
            os.replace(part, path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return
        self._note(path.name)
        self._added += len(whole)
        if self._added > self.most // 10:
            self._added = 0
            self.sweep()

    def forget(self, key: str, payload: tuple[int, int]) -> bool:
        """Remove a payload; return whether it was there."""
        path = self._path(key, payload)
        self._checked.discard(path.name)
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def sweep(self) -> None:
        """Remove what was read least recently, until a tenth is free, and what killed ones left."""
        try:
            with FileLock(self.folder / "sweep.lock", timeout=0):
                self._sweep()
        except (Timeout, OSError):
            return  # another process is at it, or the disk is away

    def _sweep(self) -> None:
        found, total = [], 0
        for folder in os.scandir(self.folder):
            for entry in os.scandir(folder) if folder.is_dir() else ():
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue
                if entry.name.endswith(_PART):
                    if time.time() - stat.st_mtime > _LEFT_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
                    continue
                found.append((stat.st_mtime_ns, stat.st_size, entry.path))
                total += stat.st_size
        if total <= self.most * 9 // 10:
            return
        for _, size, path in sorted(found):
            Path(path).unlink(missing_ok=True)
            total -= size
            if total <= self.most * 9 // 10:
                return

    def _note(self, name: str) -> None:
        if len(self._checked) >= _REMEMBERED:
            self._checked.clear()
        self._checked.add(name)

    def _path(self, key: str, payload: tuple[int, int]) -> Path:
        name = hashlib.sha256(f"{key}:{payload[0]}:{payload[1]}".encode()).hexdigest()
        return self.folder / name[:2] / name


def _digest(whole: memoryview) -> bytes:
    return xxhash.xxh3_64_digest(whole)


def _is_whole(file: int, length: int) -> bool:
    if os.fstat(file).st_size != length + _CHECK:
        return False
    found = os.pread(file, length + _CHECK, 0)
    return len(found) == length + _CHECK and _digest(memoryview(found)[:length]) == found[length:]
