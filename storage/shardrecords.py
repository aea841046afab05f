"""What is known of one finished shard: kept in `.unfinished/` until the set's own files have it."""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from storage.moments import Moments
from storage.places import UNFINISHED, Place, put
from storage.shardtiles import Rejected

_DIGEST = 32


@dataclass(frozen=True)
class Columns:
    """Of each tile of a shard, in order."""

    number: np.ndarray
    """Which of the planned tiles it is, int64: all of them, but for those that were rejected."""
    offset: np.ndarray
    """Of the payload in the shard [byte], int64."""
    length: np.ndarray
    """Of the payload [byte], int64."""
    label_offset: np.ndarray
    """Of the label's values [byte], int64; -1 without."""
    checksums: np.ndarray
    """(tile, band), with a codec (tile, 1), uint32."""
    masks: np.ndarray
    """Packed bits of `valid` (tile, 512), uint8."""
    labels: np.ndarray
    """sha256 of each label (tile, 32), uint8; zeros without."""
    moments: np.ndarray
    """Count, mean and sum of squared deviations of all stored values (3, band), float64."""


@dataclass(frozen=True)
class Finished:
    """A shard that is whole and was read again."""

    entry: dict[str, Any]
    """The manifest's: name, split, sensor, bytes, sha256, samples, content."""
    columns: Columns
    rejected: tuple[Rejected, ...] = ()


def record_name(shard: str) -> str:
    """Return the name of a shard's record."""
    return f"{UNFINISHED}/{shard}.record"


def save_record(place: Place, record: Finished) -> None:
    """Write the record of a shard that is whole."""
    arrays = {field.name: getattr(record.columns, field.name) for field in fields(Columns)}
    buffer = io.BytesIO()
    told = json.dumps([record.entry, [asdict(each) for each in record.rejected]])
    np.savez(buffer, told=np.frombuffer(told.encode(), np.uint8), **arrays)
    data = buffer.getvalue()
    put(place, record_name(record.entry["name"]), hashlib.sha256(data).digest() + data)


def load_record(place: Place, shard: str) -> Finished | None:
    """Return a shard's record, None if there is none, or a damaged or an older one."""
    name = record_name(shard)
    if place.size(name) is None:
        return None
    content = place.read(name)
    data = content[_DIGEST:]
    if content[:_DIGEST] != hashlib.sha256(data).digest():
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        if "told" not in found:
            return None
        entry, rejected = json.loads(found["told"].tobytes())
        columns = Columns(**{field.name: found[field.name] for field in fields(Columns)})
        return Finished(entry, columns, tuple(Rejected(**each) for each in rejected))


def moments_of(values: np.ndarray) -> Moments:
    """Return the moments that `Columns.moments` holds (3, band)."""
    return Moments(values[0].astype(np.int64), values[1], values[2])
