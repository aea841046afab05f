"""One self-contained page about a scene."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.qa import product
from pipeline.qa.numbers import summary
from pipeline.qa.quality import Quality
from pipeline.qa.words import limit_in_words, reason_in_words, said, spaced, steps_in_words
from pipeline.steps.geometry import MAP_GEOMETRY
from storage import html

_NO_DETECTORS = f"None. {MAP_GEOMETRY[:1].upper()}{MAP_GEOMETRY[1:]}."


def compose(quality: Quality, pictures: Mapping[str, bytes]) -> str:
    """Return the page as HTML that needs no other file; all text is escaped.

    Args:
        quality: What the page says.
        pictures: PNGs by the names that `pipeline.qa.pages.draw` gives them; a section without
            its picture says why.
    """
    scene_id = str(quality.facts["scene_id"])
    parts = [
        f"<h1>{html.escape(scene_id)}</h1>",
        html.paragraph(product.one_line(quality.facts), soft=True),
        html.tiles(*_headlines(quality)),
        *_problems(quality),
        *_pictures_of_it(quality, pictures),
        *_masks(quality, pictures),
        *_tiles(quality, pictures),
        *_spectra(quality, pictures),
        *_noise(quality, pictures),
        *_stripes(quality, pictures),
        *_detectors(quality, pictures),
        *_geometry(quality, pictures),
        *_steps(quality),
        *product.section(quality.facts),
    ]
    return html.document(f"{scene_id}: quality", parts)


def _headlines(quality: Quality) -> list[tuple[str, str]]:
    found = summary(quality)
    shown = [
        (f"{found['tiles_kept']} of {found['tiles_in']}", "tiles kept"),
        (f"{found['valid_fraction']:.1%}", "of pixels valid"),
    ]
    if "cloud_fraction" in found:
        shown.append((f"{found['cloud_fraction']:.1%}", "of valid pixels cloud"))
    detectors = [name.lower() for name in dict.fromkeys(quality.bands.detector.tolist())]
    shown += [
        (f"{found[f'snr_{name}']:.0f}", f"{name.upper()}: median SNR")
        for name in detectors
        if math.isfinite(found[f"snr_{name}"])
    ]
    stripes = {
        name: [found[f"stripe_index_{when}_{name}"] for when in ("before", "after")]
        for name in detectors
    }
    shown += [
        (f"{before:.2%} → {after:.2%}", f"{name.upper()}: median stripe index")
        for name, (before, after) in stripes.items()
        if math.isfinite(before + after)
    ]
    return shown


def _problems(quality: Quality) -> list[str]:
    problems = quality.facts["problems"]
    if not problems:
        return [html.heading("Problems"), html.paragraph("None were found.")]
    items = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
    return [html.heading("Problems"), f"<ul>{items}</ul>"]


def _figure(pictures: Mapping[str, bytes], name: str, alt: str, why: str) -> str:
    """Return the picture, or else why there is none."""
    if name in pictures:
        return html.image(html.data_uri(pictures[name]), alt)
    return html.paragraph(why)


def _pictures_of_it(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    step = quality.preview.step
    thin = "" if step == 1 else f" Every {_nth(step)} row and column is shown."
    return [
        html.heading("Quicklooks"),
        html.paragraph(
            f"{_quantity(quality)}, each band stretched to its own 2-98 %; white where nothing was "
            f"measured. The numbered pixels are those of the spectra below.{thin}"
        ),
        _figure(pictures, "quicklooks", "true and false colour",
                "The stored bands do not have red, green, blue and near infrared."),
    ]  # fmt: skip


def _masks(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    found = quality.masks
    parts = [
        html.heading("Masks"),
        html.paragraph(
            "Rules on single pixels, with published thresholds: bright rock, sand and roofs can "
            "pass for cloud, dark rock and conifers for shadow. "
            "Shares count all of the scene's pixels."
        ),
        _figure(pictures, "masks", "masks", ""),
    ]
    if found.unavailable:
        parts.append(html.table(
            ("not available", "why"), [(spaced(n), why) for n, why in found.unavailable.items()]
        ))  # fmt: skip
    return parts


def _tiles(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    counts = quality.fates.counts
    rows = [("kept", counts["kept"])]
    limits = quality.steps[-1].get("keep", {})
    rows += [
        (f"rejected: {reason_in_words(r)}{limit_in_words(limits.get(r, {}))}", n)
        for r, n in counts["rejected"].items()
    ]
    rows += [("all windows of 64 x 64 pixels", counts["in"])]
    return [
        html.heading("Tiles"),
        html.table(("fate", "tiles"), rows),
        _figure(pictures, "fates", "tiles by their fate",
                "The scene is smaller than one window of 64 x 64 pixels."),
    ]  # fmt: skip


def _spectra(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    number = len(quality.pixels.row)
    return [
        html.heading("Spectra and values"),
        html.paragraph(
            f"{number} pixels that stand for the groups that k-means finds among "
            f"{quality.pixels.sampled} pixels on a regular grid; in brackets each group's share. "
            "Shaded: where the product's bands are not calibrated or have no positive gain, and "
            "where water vapour lets no light through to the ground; the range of the axis is that "
            "of the other bands."
        ),
        _figure(pictures, "spectra", "spectra of representative pixels",
                "No pixel has a whole spectrum."),
        _figure(pictures, "histograms", "histograms of the stored quantity", ""),
    ]  # fmt: skip


def _noise(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    resampled = (
        " This product was resampled to a map, which smooths noise: the true ratio is lower."
        if quality.detectors is None
        else ""
    )
    return [
        html.heading("Signal over noise"),
        html.paragraph(
            f"Median over {quality.bands.windows} windows of 64 x 64 clear pixels. Noise is what "
            "neighbours in space and spectrum do not tell, so it is that of this scene's light. "
            f"Stripes do not count, and single bands can be off by a factor of two.{resampled}"
        ),
        _figure(pictures, "snr", "signal over noise by wavelength",
                "No window of 64 x 64 pixels is at least 90 % valid and free of cloud, or too few "
                "bands vary."),
    ]  # fmt: skip


def _stripes(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    why = (
        _NO_DETECTORS
        if quality.detectors is None
        else "Not known: too few pixels, or no band with a positive level."
    )
    text = [
        html.paragraph(
            "The spread of the columns' gains about their neighbours', relative to the level; 0.01 "
            "is one per cent. Measured on the integers, before and after the recipe's steps."
        )
    ]
    return [
        html.heading("Stripes"), *(text if "stripes" in pictures else []),
        _figure(pictures, "stripes", "stripe index by wavelength", why),
    ]  # fmt: skip


def _detectors(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    if quality.detectors is None:
        why = _NO_DETECTORS
    else:
        why = "No detector is dead or stuck, and no sample of the calibrated bands counts as dead."
    rows = [
        (detector, *(said("", counts[reason]) for reason in ("flagged", "empty", "stuck")))
        for step in quality.steps if step["step"] == "detectors"
        for detector, counts in step.get("found", {}).items()
    ]  # fmt: skip
    head = ("detectors", "flagged as dead", "empty", "stuck")
    return [
        html.heading("Dead and stuck detectors"),
        *([html.table(head, rows)] if rows else []),
        _figure(pictures, "detectors", "dead and stuck detectors by band and column", why),
    ]


def _geometry(quality: Quality, pictures: Mapping[str, bytes]) -> list[str]:
    record = next((s for s in quality.steps if s["step"] == "coregister"), None)
    if record is None:
        found = html.paragraph(f"Not estimated: the recipe {quality.recipe} has no step for it.")
    elif "effect" not in record:
        found = html.paragraph(f"Not estimated: {record['why']}.")
    else:
        found = html.table(
            ("half", "SWIR against VNIR", "significant", "comparisons that agree", "moved back",
             "correlation of the bands"),
            [(half, _shift(e), said("", e["significant"]),
              f"{e['agreeing']} of {e['comparisons']}", said("applied", e["applied"]),
              said("correlation", e["correlation"]))
             for half, e in record["effect"].items()],
        )  # fmt: skip
    no_smile = (
        _NO_DETECTORS if quality.detectors is None
        else "Not known: the product has no wavelengths by column."
    )  # fmt: skip
    return [
        html.heading("Coregistration of VNIR and SWIR"), found,
        html.heading("Smile"),
        _figure(pictures, "smile", "deviation of the columns' wavelengths", no_smile),
    ]  # fmt: skip


def _shift(effect: Mapping[str, Any]) -> str:
    if None in effect["shift"]:
        return "nothing to compare"
    y, x = effect["shift"]
    spread = effect["uncertainty"]
    around = "" if spread is None else f" ± {spread:.2f}"
    return f"{y:+.2f} rows, {x:+.2f} columns{around}"


def _steps(quality: Quality) -> list[str]:
    return [
        html.heading(f"What was done: recipe {quality.recipe}"),
        html.table(
            ("step", "with", "measured and recorded"),
            steps_in_words(quality.steps, quality.parameters),
            look="steps",
        ),
    ]


def _quantity(quality: Quality) -> str:
    text = quality.quantity
    return text[:1].upper() + text[1:]


def _nth(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
