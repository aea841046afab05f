"""What a set says of all its tiles and shards: index, checksums, masks, sums, and the manifest."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.labels import Labels
from storage.moments import Moments, merge, no_moments
from storage.nodes import plain
from storage.places import Place, Sink, put
from storage.schema import SPLITS, TILE_SIZE, SchemaError
from storage.shardoptions import ShardOptions
from storage.shardplan import Plan
from storage.shardrecords import Columns, Finished, load_record, moments_of
from storage.shardset import CHECKSUMS, INDEX, MANIFEST, MASKS, SUMS
from storage.shardwork import label_digests
from storage.tar import header_of

_MASK_BYTES = TILE_SIZE**2 // 8
_PLACES = ("offset", "length", "label_offset")


def write_tables(place: Place, plan: Plan, options: ShardOptions, count: int) -> dict[str, Any]:
    """Write all files of a set but the shards, which are there, and the manifest.

    Reads the shards' records one by one.

    Args:
        place: Where the shards and their records are.
        plan: Which they were to be.
        options: What they were made with.
        count: Tiles in all of them.

    Returns:
        What the manifest says of tiles, sensors, shards and these files.
    """
    most = max(len(entry["band"]) for entry in plan.spectra.sensors.values())
    widest = most if options.codec == "none" else 1
    entries: list[dict[str, Any]] = []
    columns = {name: np.empty(count, np.int64) for name in ("row", *_PLACES)}
    moments: list[np.ndarray] = []
    with ExitStack() as stack:
        checksums = stack.enter_context(place.writing(CHECKSUMS))
        masks = stack.enter_context(place.writing(MASKS))
        checksums.write(header_of(np.dtype("<u4"), (count, widest)))
        masks.write(header_of(np.dtype("u1"), (count, _MASK_BYTES)))
        start = 0
        for (_, rows), record in zip(plan.shards, records_of(place, plan), strict=True):
            stop = start + record.entry["samples"]
            if stop == start:
                continue  # all were rejected
            columns["row"][start:stop] = rows.start + record.columns.number
            for name in _PLACES:
                columns[name][start:stop] = getattr(record.columns, name)
            start = stop
            _add_rows(record.columns, widest, checksums, masks)
            entries.append(record.entry)
            moments.append(record.columns.moments)
    return {
        "tiles": count,
        "splits": {s: sum(e["samples"] for e in entries if e["split"] == s) for s in SPLITS},
        "sensors": _sensors(plan, options, entries, moments),
        "spectral": plan.spectra.spectral,
        "shards": entries,
        "index": _write_index(place, plan, entries, columns),
        "checksums": _described(CHECKSUMS, checksums),
        "masks": _described(MASKS, masks),
        "sums": _write_sums(place, moments, most),
    }


def write_manifest(place: Place, manifest: dict[str, Any]) -> None:
    """Write the manifest: from now on there is a set."""
    text = json.dumps(plain(manifest), indent=1, allow_nan=False)
    put(place, MANIFEST, text.encode() + b"\n")


def label_manifest(place: Place | None, plan: Plan, labels: Labels | None) -> dict[str, Any] | None:
    """Return what the manifest says of labels, None without.

    Args:
        place: Where the shards' records are; None: the labels are read.
        plan: The tiles.
        labels: Their rasters.
    """
    if labels is None:
        return None

    def digests() -> Iterator[bytes]:
        if place is None:
            for task in plan.tasks():
                yield label_digests(labels, task.records).tobytes()
        else:
            for record in records_of(place, plan):
                yield record.columns.labels.tobytes()

    return labels.manifest(digests())


def records_of(place: Place, plan: Plan) -> Iterator[Finished]:
    """Yield what is known of each shard of a plan, all of which are finished.

    Raises:
        SchemaError: A record is gone.
    """
    for name, _ in plan.shards:
        record = load_record(place, name)
        if record is None:
            raise SchemaError(
                f"{place}: the record of {name} is gone since the shard was written; does another "
                "process write or remove there? Write the set again"
            )
        yield record


def _add_rows(columns: Columns, widest: int, checksums: Sink, masks: Sink) -> None:
    rows = np.zeros((len(columns.checksums), widest), "<u4")
    rows[:, : columns.checksums.shape[1]] = columns.checksums
    checksums.write(memoryview(rows).cast("B"))
    masks.write(memoryview(np.ascontiguousarray(columns.masks)).cast("B"))


def _sensors(
    plan: Plan, options: ShardOptions, entries: list[dict[str, Any]], moments: list[np.ndarray]
) -> dict[str, Any]:
    """Return the manifest's `sensors`, with statistics in physical units, stored / scale.

    Statistics are those of the train split, or of all tiles of a sensor that has none in train.
    """
    result = {}
    for sensor, first in sorted(plan.spectra.sensors.items()):
        mine = [(e, m) for e, m in zip(entries, moments, strict=True) if e["sensor"] == sensor]
        if not mine:
            continue  # all of its tiles were rejected
        trained = any(entry["split"] == "train" for entry, _ in mine)
        total: Moments = no_moments(len(first["band"]))
        for entry, part in mine:
            if entry["split"] == "train" or not trained:
                total = merge(total, moments_of(part))
        scale = first["scale"]
        result[sensor] = {
            **first,
            "dtype": options.dtype or first["dtype"],
            "tiles": sum(entry["samples"] for entry, _ in mine),
            "statistics": {
                "split": "train" if trained else "all",
                "mean": (total.mean / scale).tolist(),
                "std": (total.std / scale).tolist(),
                "count": total.count.tolist(),
            },
        }
    return result


def _write_index(
    place: Place, plan: Plan, entries: list[dict[str, Any]], columns: dict[str, np.ndarray]
) -> dict[str, Any]:
    number = np.repeat(np.arange(len(entries), dtype="i4"), [e["samples"] for e in entries])
    names = pa.array([entry["name"] for entry in entries])
    kept = plan.table
    if len(columns["row"]) < len(kept):
        kept = kept.take(columns["row"])
    added = {
        "shard": pa.DictionaryArray.from_arrays(pa.array(number), names),
        "offset": pa.array(columns["offset"]),
        "length": pa.array(columns["length"]),
        "spectral": kept["spectral"],
        "label_offset": pa.array(columns["label_offset"]),
    }
    table = kept.drop_columns("spectral")
    for name, column in added.items():
        table = table.append_column(name, column)
    with place.writing(INDEX) as sink:
        pq.write_table(table, sink, compression="zstd")
    return _described(INDEX, sink)


def _write_sums(place: Place, moments: list[np.ndarray], most: int) -> dict[str, Any]:
    """Write count, mean and squared deviations (shard, 3, band), of which statistics are made."""
    with place.writing(SUMS) as sink:
        sink.write(header_of(np.dtype("<f8"), (len(moments), 3, most)))
        for part in moments:
            row = np.zeros((3, most), "<f8")
            row[:, : part.shape[1]] = part
            sink.write(row.tobytes())
    return _described(SUMS, sink)


def _described(name: str, sink: Sink) -> dict[str, Any]:
    return {"name": name, "bytes": sink.bytes, "sha256": sink.sha256}
