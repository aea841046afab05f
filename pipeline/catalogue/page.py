"""The dataset card as one self-contained page, and as Markdown."""

import json
from collections.abc import Mapping, Sequence

from pipeline.catalogue import certificate, words
from pipeline.catalogue.card import Card
from storage import html

type Snippets = Sequence[tuple[str, str, str]]

FILES = (
    ("index.parquet", "one row a tile: place, split, quality"),
    ("scenes.parquet", "one row a scene: time, angles, counts, footprint, sources with sha256"),
    ("collection.json, items/", "STAC collection, and an item a scene"),
    ("croissant.json", "Croissant metadata"),
    ("README.md", "this card as Markdown"),
)


def page(card: Card, pictures: Mapping[str, bytes], snippets: Snippets) -> str:
    """Return the card as HTML that needs no other file; all text is escaped.

    Args:
        card: The version.
        pictures: PNGs `footprints`, `histograms`, `fan-<sensor>`, as far as there is something.
        snippets: How to load it.
    """
    parts = [
        f"<h1>{html.escape(f'{card.dataset} {card.version.tag}')}</h1>",
        html.paragraph(words.one_line(card), soft=True),
        html.tiles(*words.headlines(card)),
        html.heading("Where it lies"),
        html.paragraph(words.place_note(card)),
        _figure(pictures, "footprints", "map of the tiles by split", "No tile's place is known."),
        html.heading("What became of every window"),
        html.paragraph("In = kept + rejected, checked for each scene, the index and the version."),
        _table(words.counts(card)),
        html.heading("Splits"),
        _table(words.splits(card)),
        *_certificate(card),
        *_spectra(card, pictures),
        html.heading("Quality of the tiles"),
        _figure(pictures, "histograms", "histograms of the quality columns", "There is no column."),
        html.heading("Scenes"),
        html.scrolled(_table(words.scenes(card), look="dense")),
        html.heading("Licences"),
        html.paragraph("Terms of the products that the tiles were made from, as far as known."),
        _table(words.licences(card), look="dense"),
        html.heading("How to load it"),
        html.paragraph("Run from this folder; paths are relative to it.", soft=True),
        *(html.paragraph(text) + html.code(code) for text, _, code in snippets),
        html.heading("What it is exactly"),
        _table(words.identity(card)),
        html.folded("The recipe: every step with its numbers", html.code(_recipe(card))),
        html.heading("Versions"),
        _table(words.history(card)),
        html.heading("Files beside this page"),
        html.table(("file", "what it is"), FILES),
    ]  # fmt: skip
    return html.document(f"{card.dataset} {card.version.tag}: dataset card", parts)


def readme(card: Card, snippets: Snippets) -> str:
    """Return the card as Markdown; its figures are in `index.html`."""
    found = card.certificate
    lines = [
        f"# {card.dataset} {card.version.tag}",
        words.one_line(card),
        "Figures, and the statistics of every band, are in [index.html](index.html).",
        "## What became of every window",
        "In = kept + rejected, checked for each scene, the index and the version.",
        _markdown(words.counts(card)),
        "## Splits",
        _markdown(words.splits(card)),
        f"### Certificate: {certificate.verdict(found)}",
        *([certificate.how(card.location)] if found is None else certificate.remarks(found)),
        *([_markdown(words.Table(("checked", "found"), certificate.rows(found)))] if found else []),
        "## Band statistics",
        *(
            [f"- {words.bands_in_words(s, b)}" for s, b in card.bands.items()]
            or [words.NO_STATISTICS]
        ),
        "## Scenes",
        _markdown(words.scenes(card)),
        "## Licences",
        _markdown(words.licences(card)),
        "## How to load it",
        *(f"{text}\n\n```{language}\n{code}```" for text, language, code in snippets),
        "## What it is exactly",
        _markdown(words.identity(card)),
        "## Versions",
        _markdown(words.history(card)),
        "## Files",
        _markdown(words.Table(("file", "what it is"), FILES)),
    ]
    return "\n\n".join(lines) + "\n"


def _certificate(card: Card) -> list[str]:
    found = card.certificate
    head = html.heading(f"Splits' certificate: {certificate.verdict(found)}")
    if found is None:
        return [head, html.paragraph(certificate.how(card.location))]
    said = [html.paragraph(text) for text in certificate.remarks(found)]
    return [head, *said, html.table(("checked", "found"), certificate.rows(found))]


def _spectra(card: Card, pictures: Mapping[str, bytes]) -> list[str]:
    parts = [html.heading("Spectra")]
    if not card.bands:
        return [*parts, html.paragraph(words.NO_STATISTICS)]
    for sensor, bands in card.bands.items():
        parts += [
            html.paragraph(words.bands_in_words(sensor, bands)),
            _figure(
                pictures,
                f"fan-{sensor}",
                f"quantiles of {sensor}'s spectra",
                "No band has a pixel.",
            ),
            html.folded(
                f"{sensor}: statistics of every band",
                html.scrolled(_table(words.bands(bands), look="dense")),
            ),
        ]
    return parts


def _figure(pictures: Mapping[str, bytes], name: str, alt: str, why: str) -> str:
    if name in pictures:
        return html.image(html.data_uri(pictures[name]), alt)
    return html.paragraph(why)


def _table(table: words.Table, *, look: str = "") -> str:
    return html.table(table.head, table.rows, look=look)


def _markdown(table: words.Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _recipe(card: Card) -> str:
    try:
        return json.dumps(json.loads(card.recipe), indent=1)
    except ValueError:
        return card.recipe
