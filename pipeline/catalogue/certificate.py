"""The certificate of the splits, in words: what an audit found, and how one is made."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from storage.schema import SchemaError
from storage.versions import Version

type Certificate = Mapping[str, Any]


def check_same(certificate: Certificate, version: Version) -> None:
    """Refuse a certificate that is of another state of the store.

    Raises:
        SchemaError: It names another snapshot than the version's.
    """
    snapshot = certificate.get("snapshot", version.snapshot)
    if snapshot != version.snapshot:
        raise SchemaError(
            f"the certificate is of {certificate.get('version')}, snapshot {snapshot}, expected "
            f"{version.tag}, snapshot {version.snapshot}; audit that version"
        )


def verdict(certificate: Certificate | None) -> str:
    """Return what the audit said, in a word."""
    if certificate is None:
        return "not run"
    return "passed" if certificate.get("passed") else "BREACHED"


def how(location: str) -> str:
    """Return how a certificate is made."""
    return (
        "This version has no certificate. "
        f"hypersigma-data audit {shlex.quote(location)} makes one, and says whether splits share "
        "places, scenes or near-duplicates."
    )


def rows(certificate: Certificate) -> list[tuple[str, str]]:
    """Return what was checked and what was found; facts that it lacks are left out."""
    found = dict(_facts(certificate))
    return [(name, text) for name, text in found.items() if "None" not in text]


def remarks(certificate: Certificate) -> list[str]:
    """Return the breaches, then the warnings, in the audit's own words."""
    breaches = [f"Breach: {text}" for text in certificate.get("breaches", ())]
    return breaches + [f"Warning: {text}" for text in certificate.get("warnings", ())]


def _facts(certificate: Certificate) -> Iterator[tuple[str, str]]:
    get = certificate.get
    yield "version audited", f"{get('version')}, {get('tiles')} tiles of {get('scenes')} scenes"
    yield "at (UTC)", f"on {get('audited_at')}"
    yield "least distance promised between splits", f"{get('promised_m')} m"
    for place in get("places", ()):
        apart, pair = place["distance_m"], " and ".join(place["splits"])
        yield f"nearest tiles of {pair}", "one has no tile" if apart is None else f"{apart:.1f} m"
    yield "scenes with tiles in several splits", str(get("scenes_in_several_splits"))
    copies = get("copies", {})
    yield "near-duplicates across splits", str(copies.get("across_splits"))
    yield "near-duplicates within a split", str(copies.get("within_split"))
    yield "tiles without a spectral hash", str(copies.get("without_pattern"))
    unknown = get("unknown_place")
    yield "tiles without a known place", str(None if unknown is None else sum(unknown.values()))
    shares = get("shares", {}).get("all", {})
    yield "shares", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "None"
