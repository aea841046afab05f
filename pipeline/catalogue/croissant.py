"""A version as Croissant metadata: its files, and what the columns of its index are.

Source: Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.catalogue import words
from pipeline.catalogue.card import Card
from pipeline.catalogue.licences import NOT_STATED, licence
from storage.export import INDEX, SCENES
from storage.schema import FOOTPRINT_COORDS
from storage.shardset import file_sha256

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_WORDS = {
    "tile_id": "<scene_id>_r<row>_c<col>, the same in every version",
    "scene_id": "The scene that the tile was cut from",
    "sensor": "hyperion, ahsi, zy1_ahsi or enmap",
    "split": "train, val or test, by place",
    "row": "Of the tile's corner in the scene's grid [pixel]",
    "col": "Of the tile's corner in the scene's grid [pixel]",
    "lon": "Of the tile's centre, WGS84 [deg]",
    "lat": "Of the tile's centre, WGS84 [deg]",
    "position": "The tile's number inside its scene",
    "snr": "Median over the bands of signal over noise [1]",
    "stripe_index": "Median over the bands of the spread of the columns' gains [1]",
    "pattern": "Spectral hash of the tile's pixels",
    **dict.fromkeys(FOOTPRINT_COORDS, "From the tile's centre to the middle of an edge [m]"),
}
_NESTED = ("rejected", "sources")
"""Columns of the scenes that are lists: Croissant has no plain type for them."""


def croissant(card: Card, folder: Path) -> dict[str, Any]:
    """Return the metadata of a version whose Parquet files are written in `folder`."""
    terms = [licence(sensor) for sensor in card.sensors]
    written = f"{card.version.written_at:%Y-%m-%d}"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": card.dataset,
        "description": words.one_line(card),
        "version": f"{card.version.tag.removeprefix('v')}.0.0",
        "datePublished": written,
        "license": sorted({each.url or f"Terms {NOT_STATED}" for each in terms}),
        "citeAs": f"{card.dataset} {card.version.tag}, snapshot {card.version.snapshot}",
        "distribution": [_file(folder / name) for name in (INDEX, SCENES)],
        "recordSet": [
            _records("tiles", "One row a tile", INDEX, card.tiles, "tile_id"),
            _records("scenes", "One row a scene", SCENES, card.scenes, "scene_id"),
        ],
    }


def _file(path: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file_sha256(path),
    }


def _records(name: str, text: str, file: str, table: pa.Table, key: str) -> dict[str, Any]:
    fields = [field for field in table.schema if field.name not in _NESTED]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, file, field) for field in fields],
    }


def _field(records: str, file: str, field: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{field.name}",
        "name": field.name,
        "description": _WORDS.get(field.name, field.name.replace("_", " ")),
        "dataType": _data_type(field.type),
        "source": {"fileObject": {"@id": file}, "extract": {"column": field.name}},
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else "sc:Text"
