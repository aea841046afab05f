"""A bucket without a server: a store in memory, and requests that go wrong on demand."""

import asyncio

import obstore
from obstore.store import MemoryStore

ROOT = "s3://bucket/set"


class Bucket:
    """What `storage.requests` asks instead of a server.

    Args:
        folder: Whose files are its objects.
    """

    def __init__(self, folder):
        self.store = MemoryStore()
        for path in folder.rglob("*"):
            if path.is_file():
                self.store.put(path.relative_to(folder).as_posix(), path.read_bytes())
        self.asked = []
        self.now = self.most = 0
        self.answer = None
        """Called with (how often this was asked before, name, start, length): bytes, an error to
        raise, or None for the true answer."""

    async def get_range_async(self, store, name, *, start, length):
        before = self.asked.count((name, start, length))
        self.asked.append((name, start, length))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.002)
            got = self.answer(before, name, start, length) if self.answer else None
            if isinstance(got, BaseException):
                raise got
            if got is None:
                got = await obstore.get_range_async(store, name, start=start, length=length)
            return got
        finally:
            self.now -= 1


def stub(monkeypatch, bucket):
    """Let all readers see a bucket at ROOT."""
    monkeypatch.setattr("storage.requests.files_at", lambda _: bucket.store)
    monkeypatch.setattr("storage.requests.get_range_async", bucket.get_range_async)
    monkeypatch.setattr("storage.requests._PAUSE", 0.001)
