"""`hypersigma-data query`: which tiles of a version meet a condition."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.output import JsonOption, StoreArgument, print_json, said_in_words, say

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS = 20
"""On a terminal, if no --limit says otherwise."""


def query(
    condition: Annotated[
        str,
        typer.Argument(
            metavar="CONDITION", help="SQL, such as \"cloud < 0.1 and sensor = 'ahsi'\"."
        ),
    ],
    location: StoreArgument,
    version: Annotated[str | None, typer.Option(help="A tag; the current version if none.")] = None,
    columns: Annotated[str | None, typer.Option(help="Comma-separated; a few if none.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of tiles.")] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write all of them to a .parquet or .csv file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tiles of a version for which a condition holds; reads the index, no pixels."""
    with said_in_words():
        from pipeline.catalogue.query import query as ask
        from pipeline.catalogue.query import save

        names = [name.strip() for name in columns.split(",")] if columns else []
        found = ask(location, condition, version=version, columns=names, limit=limit)
        if file:
            save(found, file)
        if as_json:
            print_json({"tiles": len(found), "rows": [] if file else found.to_pylist()})
        elif file:
            say(f"{len(found)} tiles: {file}")
        else:
            _show(found, limit or SHOWN_ROWS)


def _show(found: "pa.Table", rows: int) -> None:
    lines = [[_said(v) for v in record.values()] for record in found.slice(0, rows).to_pylist()]
    lines.insert(0, found.column_names)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:  # by hand: a table of rich's cuts tile ids where the terminal is narrow
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    more = f"; the first {rows} are shown" if len(found) > rows else ""
    say(f"{len(found)} tiles{more}")


def _said(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
