"""Writes a version's dataset card, Parquet tables, STAC and Croissant into one folder."""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.catalogue import figures, stac
from pipeline.catalogue.card import Card, gather
from pipeline.catalogue.croissant import croissant
from pipeline.catalogue.loading import snippets
from pipeline.catalogue.page import page, readme
from storage.export import write_parquet
from storage.location import Location, local_path
from storage.schema import SchemaError

MANIFEST = "report.json"
SCHEMA = "hypersigma-report/1"


def write_report(
    location: Location,
    out: Path | str,
    version: str | None = None,
    certificate: Mapping[str, Any] | None = None,
) -> Card:
    """Write all that is said about a version into the folder `out`, whole or not at all.

    `index.html` and `README.md`; `index.parquet` and `scenes.parquet`; `collection.json` and
    `items/<scene_id>.json`; `croissant.json`; `report.json`, which lists the files. An earlier
    report in `out` is replaced, and stays as it was if this one fails.

    Args:
        location: The store.
        out: A folder that is new, empty, or an earlier report.
        version: A tag, or None for the head.
        certificate: What `audit` found; None: what the version's metadata have of it.

    Returns:
        What the card says.

    Raises:
        SchemaError: `out` holds something else, no such version, or its counts do not add up.
    """
    target = Path(out).absolute()
    _check_free(target)
    # One snapshot for all files, even if the head moves meanwhile.
    card = gather(location, version, certificate)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write(card, location, work, target)
        work.chmod(0o755)
        _put(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return card


def _write(card: Card, location: Location, folder: Path, target: Path) -> None:
    store = _from(location, target)
    card = dataclasses.replace(card, location=store)
    write_parquet(location, folder, card.version.tag)
    code = snippets(card, store)
    pictures = {"footprints": figures.footprints(card), "histograms": figures.histograms(card)}
    pictures |= {f"fan-{s}": figures.fan(b) for s, b in card.bands.items()}
    drawn = {name: png for name, png in pictures.items() if png}
    (folder / "index.html").write_text(page(card, drawn, code), encoding="utf-8")
    (folder / "README.md").write_text(readme(card, code), encoding="utf-8")
    href = quote(store, safe=":/.")
    found = stac.collection(card, href)
    stac.validate(found)
    _json(folder / "collection.json", found)
    (folder / "items").mkdir()
    for scene_id, item in stac.items(card, href):
        stac.validate(item)
        _json(folder / "items" / f"{scene_id}.json", item)
    _json(folder / "croissant.json", croissant(card, folder))
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    _json(folder / MANIFEST, {
        "schema": SCHEMA, "dataset": card.dataset, "version": card.version.tag,
        "snapshot": card.version.snapshot, "files": [*files, MANIFEST],
    })  # fmt: skip


def _check_free(target: Path) -> None:
    """Refuse a place that holds anything but an earlier report."""
    if not target.exists():
        return
    folder = target.is_dir() and not target.is_symlink()
    found = [p for p in target.rglob("*") if not p.is_dir() or p.is_symlink()] if folder else []
    there = {p.relative_to(target).as_posix() for p in found} if folder else {target.name}
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        ours = set(manifest["files"]) if manifest["schema"] == SCHEMA else set()
    except (OSError, ValueError, LookupError, TypeError):
        ours = set()
    if others := sorted(there - ours):
        raise SchemaError(
            f"{target} must be new, empty or an earlier report, got {others[0]} in it; "
            "name another folder"
        )


def _put(work: Path, target: Path) -> None:
    """Move the finished folder to its place; an earlier report goes when the new one is there."""
    if not target.exists():
        work.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old)  # onto an empty folder
    try:
        work.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _from(location: Location, folder: Path) -> str:
    """Return where the store is, as seen from `folder` if it is on this disk."""
    local = local_path(location)
    return str(location) if local is None else Path(os.path.relpath(local, folder)).as_posix()


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")
