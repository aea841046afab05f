"""What the card says, as headed tables and paragraphs that its HTML and Markdown share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.catalogue import certificate
from pipeline.catalogue.card import QUANTILES, Bands, Card
from pipeline.catalogue.licences import licence
from storage.schema import SPLITS, TILE_SIZE

UNITS = {"1": "reflectance [1]", "DN": "digital numbers", "W m-2 sr-1 um-1": "radiance"}
NO_STATISTICS = (
    "This version has no band statistics: it was built before they were stored. "
    "The next build of this dataset stores them."
)


@dataclass(frozen=True)
class Table:
    """Rows under a head; cells are text or numbers."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[object]]


def one_line(card: Card) -> str:
    """Return what the dataset is in one sentence."""
    sensors = " and ".join(card.sensors)
    units = " and ".join(UNITS.get(u, u) for u in sorted(set(card.scenes["units"].to_pylist())))
    return (
        f"{len(card.tiles):,} tiles of {TILE_SIZE} x {TILE_SIZE} pixels from {len(card.scenes):,} "
        f"hyperspectral scenes ({sensors}), {units}, taken {_span(card)}."
    )


def headlines(card: Card) -> list[tuple[str, str]]:
    """Return the numbers that stand at the top, each with what it is."""
    count = _by_split(card)
    kept, entered = card.total("tiles_kept"), card.total("tiles_in")
    return [
        (card.version.tag, "version"),
        (f"{len(card.scenes):,}", "scenes"),
        (f"{len(card.tiles):,}", "tiles"),
        (" / ".join(f"{count[name]:,}" for name in SPLITS), " / ".join(SPLITS)),
        (f"{kept / max(entered, 1):.0%}", "of the windows kept"),
        (certificate.verdict(card.certificate), "splits' audit"),
    ]


def identity(card: Card) -> Table:
    """Return what pins the version."""
    version = card.version
    names = ", ".join(version.names) or "none"
    return Table(
        ("", ""),
        [
            ("store", card.location),
            ("version", f"{version.tag}, snapshot {version.snapshot}"),
            ("other names", names),
            ("written", f"on {version.written_at:%Y-%m-%d %H:%M} UTC"),
            ("recipe", f"sha256 {version.recipe_hash}"),
            ("code", f"hypersigma-pipeline {version.code_version}"),
        ],
    )


def counts(card: Card) -> Table:
    """Return the fate of all windows of all scenes, by sensor and in total."""
    sensors = card.sensors
    rows = {name: dict.fromkeys(sensors, 0) for name in ("kept", *card.rejected, "in")}
    for scene in card.scenes.to_pylist():
        sensor = scene["sensor"]
        rows["in"][sensor] += scene["tiles_in"]
        rows["kept"][sensor] += scene["tiles_kept"]
        for reason, count in scene["rejected"]:
            rows[reason][sensor] += count
    words = {"kept": "kept", "in": "all windows"}
    return Table(
        ("fate", *sensors, "total"),
        [
            (
                words.get(name, f"rejected: {name.replace('_', ' ')}"),
                *row.values(),
                sum(row.values()),
            )
            for name, row in rows.items()
        ],
    )


def splits(card: Card) -> Table:
    """Return tiles by sensor and split."""
    pairs = card.tiles.group_by(["sensor", "split"]).aggregate([([], "count_all")]).to_pylist()
    count = {(pair["sensor"], pair["split"]): pair["count_all"] for pair in pairs}
    rows = [(s, *(count.get((s, name), 0) for name in SPLITS)) for s in card.sensors]
    return Table(("sensor", *SPLITS), rows)


def scenes(card: Card) -> Table:
    """Return one row a scene."""
    reasons = list(card.rejected)
    head = ("scene", "sensor", "platform", "level", "acquired (UTC)", "sun [°]",
            "in", "kept", *(reason.replace("_", " ") for reason in reasons), *SPLITS)  # fmt: skip
    rows = []
    for scene in card.scenes.to_pylist():
        rejected = dict(scene["rejected"])
        rows.append((
            scene["scene_id"], scene["sensor"], scene["platform"], scene["level"],
            f"{scene['acquired']:%Y-%m-%d\u00a0%H:%M}", _number(scene["sun_elevation"], ".1f"),
            scene["tiles_in"], scene["tiles_kept"],
            *(rejected.get(reason, 0) for reason in reasons), *(scene[name] for name in SPLITS),
        ))  # fmt: skip
    return Table(head, rows)


def bands(found: Bands) -> Table:
    """Return one row a band."""
    head = ("band", "wavelength [nm]", "pixels", "mean", "std",
            *(f"{100 * level:.0f} %" for level in QUANTILES))  # fmt: skip
    columns = (found.mean, found.std, *found.quantiles)
    rows = [
        (int(found.number[i]), f"{found.wavelength[i]:.1f}", f"{int(found.count[i]):,}",
         *(_number(float(column[i]), ".4g") for column in columns))
        for i in range(len(found.number))
    ]  # fmt: skip
    return Table(head, rows)


def bands_in_words(sensor: str, found: Bands) -> str:
    """Return of which pixels a sensor's statistics are."""
    known = found.wavelength[np.isfinite(found.wavelength)]
    where = "the train split" if found.split == "train" else "all splits (none is in train)"
    return (
        f"{sensor}: {len(found.number)} bands, {known.min():.0f} to {known.max():.0f} nm; "
        f"{int(found.count.max()):,} pixels of {where}, a regular sample of each tile's."
    )


def licences(card: Card) -> Table:
    """Return each sensor's terms and where they were read."""
    found = [(sensor, licence(sensor)) for sensor in card.sensors]
    return Table(
        ("sensor", "provider", "terms", "read at"),
        [(sensor, each.provider, each.terms, each.url or "-") for sensor, each in found],
    )


def history(card: Card) -> Table:
    """Return all versions, the newest first."""
    return Table(
        ("version", "scenes", "tiles", "written (UTC)", "code", "other names", ""),
        [
            (v.tag, v.scenes, v.tiles, f"{v.written_at:%Y-%m-%d %H:%M}", v.code_version,
             ", ".join(v.names), "this card" if v.tag == card.version.tag else "")
            for v in reversed(card.history)
        ],
    )  # fmt: skip


def place_note(card: Card) -> str:
    """Return what the map shows."""
    if card.outlined:
        return (
            "Tiles as they lie on the ground, or points where they are too many or too far apart "
            "for outlines. Dashed, if it can be drawn: the hull of each scene's kept tiles."
        )
    return (
        "Of some or all scenes this version has the tiles' centres, not their outlines: points are "
        "centres, and a hull (dashed) of centres is half a tile too small on each side."
    )


def _by_split(card: Card) -> dict[str, int]:
    return {name: card.total(name) for name in SPLITS}


def _span(card: Card) -> str:
    first, last = (f"{edge(card.scenes['acquired'].to_pylist()):%Y-%m-%d}" for edge in (min, max))
    return f"on {first}" if first == last else f"from {first} to {last}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None or not math.isfinite(value) else format(value, form)
