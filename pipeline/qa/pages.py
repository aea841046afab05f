"""Writes a scene's page, its pictures and its numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.qa import figures, pictures
from pipeline.qa.numbers import numbers
from pipeline.qa.page import compose
from pipeline.qa.quality import Quality
from storage.schema import check_scene_id


def write_page(quality: Quality, folder: Path) -> Path:
    """Write the QA page of a scene; return the page's path.

    Into `folder`: `<scene_id>.html`, which needs no other file; the same pictures as files,
    `<scene_id>/<picture>.png`; and `<scene_id>.json`, the page's numbers, written last.

    Raises:
        SchemaError: The scene's id can be no file's name.
    """
    scene_id = check_scene_id(quality.facts["scene_id"])
    drawn = draw(quality)
    text, data = compose(quality, drawn), json.dumps(numbers(quality), allow_nan=False)
    (folder / scene_id).mkdir(parents=True, exist_ok=True)
    for name, png in drawn.items():
        (folder / scene_id / f"{name}.png").write_bytes(png)
    page = folder / f"{scene_id}.html"
    page.write_text(text, encoding="utf-8")
    (folder / f"{scene_id}.json").write_text(data + "\n", encoding="utf-8")
    return page


def draw(quality: Quality) -> dict[str, bytes]:
    """Return the pictures that there is something to show in, PNGs by name."""
    q, preview, bands = quality, quality.preview, quality.bands
    there: dict[str, tuple[bool, Callable[[], bytes]]] = {
        "quicklooks": (
            pictures.has(preview, (*pictures.TRUE, *pictures.FALSE)),
            lambda: pictures.quicklooks(preview, q.pixels),
        ),
        "masks": (True, lambda: pictures.masks(preview, q.masks.valid, q.masks.share)),
        "fates": (q.fates.row.size > 0, lambda: pictures.fates(preview, q.fates)),
        "spectra": (
            q.pixels.row.size > 0,
            lambda: figures.spectra(q.pixels, bands, q.shaded, q.quantity),
        ),
        "histograms": (
            bool(preview.images) and bool(preview.valid.any()),
            lambda: figures.histograms(preview, q.quantity),
        ),
        "snr": (bool(np.isfinite(bands.snr).any()), lambda: figures.snr(bands, q.shaded)),
        "stripes": (
            bool(np.isfinite(bands.stripes_before).any()),
            lambda: figures.stripes(bands, q.shaded),
        ),
    }
    if (found := q.detectors) is not None:
        some = bool(found.bad.any() or (found.dead > figures.PARTLY_DEAD).any())
        there["detectors"] = (some, lambda: figures.detectors(found, bands))
    if (smile := q.smile) is not None:
        there["smile"] = (True, lambda: figures.smile(smile))
    return {name: make() for name, (possible, make) in there.items() if possible}
