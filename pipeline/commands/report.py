"""`hypersigma-data report`: a version's dataset card, tables, STAC and Croissant."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.output import JsonOption, StoreArgument, print_json, said_in_words, say


def report(
    location: StoreArgument,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the report.")],
    version: Annotated[str | None, typer.Option(help="A tag; the current version if none.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="What `audit --out` wrote; the audit is run if none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset card (HTML and Markdown), Parquet tables, STAC and Croissant of a version."""
    with said_in_words():
        from pipeline.audit.proof import audit
        from pipeline.catalogue.report import write_report

        text = certificate.read_text(encoding="utf-8") if certificate else ""
        found = json.loads(text or audit(location, version).to_json())
        card = write_report(location, folder, version, found)
        scenes, tiles, page = len(card.scenes), len(card.tiles), str(folder / "index.html")
        facts = {
            "version": card.version.tag, "scenes": scenes, "tiles": tiles,
            "in": card.total("tiles_in"), "rejected": card.rejected, "page": page,
        }  # fmt: skip
        if as_json:
            print_json(facts)
        else:
            say(f"{card.version.tag}: {tiles} tiles of {scenes} scenes: {page}")
