"""What is made of a version after its build: certificate, shards, report, table.

Each is made once: what is there already, of the same snapshot, is left as it is. So a run that was
cut off goes on where it was, and one with nothing new does nothing.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from pipeline.build import BuildReport, DatasetConfig
from storage import store
from storage.location import Location
from storage.nodes import subgroup
from storage.records import Records
from storage.schema import SchemaError
from storage.shards import write_shards
from storage.shardset import MANIFEST, open_shards
from storage.versions import Version, find_version

logger = logging.getLogger(__name__)

type Certificate = dict[str, Any]

_ROWS = 50
"""Scenes that a table names; the others are in its sums."""


class LeakError(SchemaError):
    """A version's splits are not apart, or its counts do not add up."""

    def __init__(self, certificate: Mapping[str, Any]) -> None:
        breaches = "; ".join(certificate["breaches"])
        super().__init__(
            f"{certificate['version']} did not pass its audit, so no shards are made of it: "
            f"{breaches}"
        )
        self.certificate = certificate


def head(location: Location) -> Version | None:
    """Return the store's current version, None if it has none yet."""
    if not store.exists(location):
        return None
    repo = store.open_repository(location)
    return find_version(repo, None) if store.versions(repo) else None


def audited(location: Location, version: Version) -> Certificate:
    """Return a version's certificate; it is made once and kept in `<store>.audits/`.

    Raises:
        LeakError: It did not pass.
    """
    kept = Records(location, "audits")
    certificate = kept.get(version.tag)
    if certificate is None or certificate["snapshot"] != version.snapshot:
        # SciPy takes a while to load: not before it is needed.
        from pipeline.audit.proof import audit

        certificate = json.loads(audit(location, version.tag).to_json())
        kept.put(version.tag, certificate)
    if not certificate["passed"]:
        raise LeakError(certificate)
    return dict(certificate)


def make_shards(config: DatasetConfig, version: Version, certificate: Certificate) -> Path | None:
    """Write a version's shards to `<config.shards>/<version>`; None if none are wanted.

    Raises:
        LeakError: The version did not pass its audit.
        SchemaError: The folder holds something else.
    """
    if config.shards is None:
        return None
    if not certificate["passed"] or certificate["snapshot"] != version.snapshot:
        raise LeakError(certificate)
    folder = config.shards / version.tag
    if _snapshot_in(folder / MANIFEST) != version.snapshot:
        before = _set_before(config.shards, folder)
        write_shards(config.store, folder, version=version.tag, previous=before)
    return folder


def make_report(config: DatasetConfig, version: Version, certificate: Certificate) -> Path | None:
    """Write a version's dataset card to `<config.report>/<version>`; None if none is wanted.

    Raises:
        SchemaError: The folder holds something else, or the version's counts do not add up.
    """
    if config.report is None:
        return None
    # Matplotlib takes a second to load: not before it is needed.
    from pipeline.catalogue.report import MANIFEST as CARD
    from pipeline.catalogue.report import write_report

    folder = config.report / version.tag
    if _snapshot_in(folder / CARD) != version.snapshot:
        write_report(config.store, folder, version.tag, certificate)
    return folder


def build_table(location: Location, built: BuildReport) -> str:
    """Return what a build did as Markdown: the scenes it made, tiles by fate, what went wrong."""
    lines = [built.to_markdown().splitlines()[0], ""]
    if built.added:
        group = store.open_version(location, built.version)
        counts = {name: _counts(group, name) for name in built.added}
        lines += ["| scene | tiles in | kept | rejected |", "|---|---:|---:|---|"]
        total: Counter[str] = Counter()
        for number, (name, found) in enumerate(counts.items()):
            total.update(found["rejected"])
            if number < _ROWS:
                lines.append(_row(name, found["in"], found["kept"], _reasons(found["rejected"])))
        if len(counts) > _ROWS:
            lines.append(_row(f"and {len(counts) - _ROWS} more", "", "", ""))
        sums = (sum(found[key] for found in counts.values()) for key in ("in", "kept"))
        lines += [_row("**all**", *sums, _reasons(total)), ""]
    told = [(name, "retired", "no product at the source") for name in built.retired]
    told += [(bad.scene, "failed", bad.reason) for bad in built.failures]
    told += [(bad.scene, "in quarantine", bad.reason) for bad in built.quarantined]
    if told:
        lines += ["| product or scene | | why |", "|---|---|---|", *(_row(*row) for row in told)]
    return "\n".join(lines)


def _counts(group: zarr.Group, scene: str) -> dict[str, Any]:
    counts: Any = subgroup(group, f"scenes/{scene}").attrs["counts"]
    return dict(counts)


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(rejected.items()) if n)


def _row(*cells: object) -> str:
    texts = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(texts) + " |"


def _set_before(shards: Path, folder: Path) -> Path | None:
    """Return the newest finished set beside `folder`, of which this version may have shards."""
    found = [path for path in shards.glob(f"*/{MANIFEST}") if path.parent != folder]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            open_shards(path.parent)
        except SchemaError as error:
            logger.warning("no shards are taken from %s: %s", path.parent, error)
        else:
            return path.parent
    return None


def _snapshot_in(file: Path) -> str | None:
    """Return the snapshot that a folder's manifest names, None if it has no whole manifest."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["snapshot"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return str(found)
