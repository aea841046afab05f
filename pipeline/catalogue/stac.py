"""A version as a STAC collection with an item a scene.

Source: STAC 1.1.0; extensions view 1.0.0, projection 2.0.0, eo 2.0.0.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pystac
from pystac.validation import RegisteredValidator

from pipeline.catalogue import words
from pipeline.catalogue.card import Card
from pipeline.catalogue.licences import licence
from storage.export import INDEX, SCENES
from storage.footprints import from_wkt
from storage.nodes import plain
from storage.schema import SPLITS, SchemaError

VERSION = "1.1.0"
_VIEW = "https://stac-extensions.github.io/view/v1.0.0/schema.json"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
_ZARR = "application/vnd.zarr; version=3"
_FOOTPRINTS = {
    "tiles": "hull of the kept tiles",
    "centres": "hull of the kept tiles' centres",
    None: "unknown",
}
_PARQUET = "application/vnd.apache.parquet"


def collection(card: Card, store: str) -> dict[str, Any]:
    """Return the collection.

    Args:
        card: The version.
        store: The store's place as seen from the card's folder.
    """
    rows = card.scenes.to_pylist()
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    links += [
        {"rel": "item", "href": f"./items/{row['scene_id']}.json", "type": "application/geo+json"}
        for row in rows
    ]
    terms = {licence(sensor).url for sensor in card.sensors} - {""}
    links += [{"rel": "license", "href": url} for url in sorted(terms)]
    times = [row["acquired"] for row in rows]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": card.dataset,
        "title": f"{card.dataset} {card.version.tag}",
        "description": words.one_line(card),
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_extent(rows)]},
            "temporal": {"interval": [[_time(min(times)), _time(max(times))]]},
        },
        "summaries": {
            "platform": sorted({row["platform"] for row in rows}),
            "instruments": card.sensors,
        },
        **{f"hypersigma:{name}": value for name, value in _pinned(card).items()},
        "assets": {
            "store": _store(card, store, "/"),
            "index": _parquet(INDEX, "One row a tile"),
            "scenes": _parquet(SCENES, "One row a scene"),
        },
        "links": links,
    }  # fmt: skip


def items(card: Card, store: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each scene's id and item; arguments as for `collection`."""
    for row in card.scenes.to_pylist():
        yield row["scene_id"], _item(card, row, f"../{store}" if "://" not in store else store)


def validate(found: Mapping[str, Any]) -> None:
    """Check a collection or item against STAC's own schema, which pystac carries: no network.

    The extensions' schemas are not carried, so their fields are not checked here.

    Raises:
        SchemaError: It is not valid.
    """
    kind = pystac.STACObjectType(found["type"])
    try:
        RegisteredValidator.get_validator().validate_core(dict(found), kind, VERSION)
    except pystac.STACValidationError as error:
        said = str(error.__cause__ or error).split("\n")[0]
        raise SchemaError(f"{found['id']}: not valid STAC {VERSION}: {said}") from error


def _item(card: Card, row: Mapping[str, Any], store: str) -> dict[str, Any]:
    scene_id, attrs = row["scene_id"], card.attrs[row["scene_id"]]
    shape = from_wkt(row["footprint"])
    angles = _angles(row)
    projection = _projection(attrs)
    extensions = [_EO, *([_VIEW] if angles else []), *([_PROJECTION] if projection else [])]
    found: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": extensions,
        "id": scene_id,
        "collection": card.dataset,
        "geometry": shape,
        "properties": {
            "datetime": _time(row["acquired"]),
            "platform": row["platform"],
            "instruments": [row["sensor"]],
            **angles,
            **projection,
            "hypersigma:footprint": _FOOTPRINTS[row["footprint_of"]],
            "hypersigma:level": row["level"],
            "hypersigma:tiles": {
                "in": row["tiles_in"], "kept": row["tiles_kept"], "rejected": dict(row["rejected"]),
                **{name: row[name] for name in SPLITS},
            },
            "hypersigma:sources": row["sources"],
        },
        "assets": {
            "tiles": {**_store(card, store, f"/scenes/{scene_id}"),
                      "bands": _bands(card.spectral[scene_id])},
        },
        "links": [
            {"rel": rel, "href": "../collection.json", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ],
    }  # fmt: skip
    if shape is not None:
        found["bbox"] = [row[side] for side in ("west", "south", "east", "north")]
    cleaned: dict[str, Any] = plain(found)
    return cleaned


def _store(card: Card, href: str, group: str) -> dict[str, Any]:
    return {
        "href": href,
        "type": _ZARR,
        "title": "Icechunk repository",
        "roles": ["data"],
        **{f"hypersigma:{name}": value for name, value in _pinned(card).items()},
        "hypersigma:group": group,
    }


def _parquet(name: str, title: str) -> dict[str, Any]:
    return {"href": f"./{name}", "type": _PARQUET, "title": title, "roles": ["metadata"]}


def _pinned(card: Card) -> dict[str, str]:
    version = card.version
    return {
        "version": version.tag,
        "snapshot": version.snapshot,
        "recipe_hash": version.recipe_hash,
    }


def _angles(row: Mapping[str, Any]) -> dict[str, float]:
    angles = {
        "view:sun_elevation": row["sun_elevation"],
        "view:sun_azimuth": None if row["sun_azimuth"] is None else row["sun_azimuth"] % 360,
        "view:incidence_angle": row["view_zenith"],
    }
    return {name: value for name, value in angles.items() if value is not None}


def _projection(attrs: Mapping[str, Any]) -> dict[str, Any]:
    if not attrs.get("crs"):
        return {}
    code = str(attrs["crs"])
    named = {"proj:code": code} if code.startswith("EPSG:") else {"proj:wkt2": code}
    return {
        **named,
        "proj:shape": list(attrs["shape"]),
        "proj:transform": [*attrs["transform"], 0.0, 0.0, 1.0],
    }


def _bands(spectral: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """Return STAC's bands; wavelengths in micrometres, rounded to a tenth of a picometre."""
    columns = zip(*(spectral[name] for name in ("band", "wavelength", "fwhm")), strict=True)
    found = []
    for number, nm, width in columns:
        band: dict[str, Any] = {"name": f"B{int(number):03d}"}
        if math.isfinite(nm):
            band["eo:center_wavelength"] = round(nm / 1000, 7)
        if math.isfinite(width):
            band["eo:full_width_half_max"] = round(width / 1000, 7)
        found.append(band)
    return found


def _extent(rows: list[dict[str, Any]]) -> list[float]:
    """Return what encloses all scenes; the whole Earth if no place is known."""
    known = [row for row in rows if row["west"] is not None]
    if not known:
        return [-180.0, -90.0, 180.0, 90.0]
    if any(row["west"] > row["east"] for row in known):
        west, east = -180.0, 180.0
    else:
        west, east = min(row["west"] for row in known), max(row["east"] for row in known)
    return [west, min(row["south"] for row in known), east, max(row["north"] for row in known)]


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
