"""Small JSON records beside a store, one object each: what is no part of any version."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import obstore
from obstore.exceptions import NotFoundError

from storage.location import Location, files_beside

_SUFFIX = ".json"
_AT_ONCE = 16
"""Requests under way: thousands of small objects take their time one by one."""


class Records:
    """Records of one kind, by name; each is replaced whole or not at all.

    Args:
        location: The store.
        kind: They lie in `<location>.<kind>/`.
    """

    def __init__(self, location: Location, kind: str) -> None:
        self._files = files_beside(location, kind)

    def load(self) -> dict[str, dict[str, Any]]:
        """Return all of them; one that is no JSON object is left out."""
        paths = [entry["path"] for batch in obstore.list(self._files) for entry in batch]

        def read(path: str) -> dict[str, Any] | None:
            return _parse(bytes(obstore.get(self._files, path).bytes()))

        with ThreadPoolExecutor(_AT_ONCE, "records") as pool:
            records = pool.map(read, [path for path in paths if path.endswith(_SUFFIX)])
            return {record.pop("name"): record for record in records if record is not None}

    def get(self, name: str) -> dict[str, Any] | None:
        """Return one, None if it is not there or no JSON object."""
        try:
            record = _parse(bytes(obstore.get(self._files, _key(name)).bytes()))
        except (NotFoundError, FileNotFoundError):
            return None
        if record is not None:
            record.pop("name")
        return record

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Write one."""
        content = json.dumps({**record, "name": name}, sort_keys=True).encode()
        obstore.put(self._files, _key(name), content)


def _key(name: str) -> str:
    # A product's name may have what a bucket's key or a file's name may not.
    return hashlib.sha256(name.encode()).hexdigest()[:32] + _SUFFIX


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "name" in record else None
