"""Pieces of self-contained pages: one look, and all text escaped."""

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { --ink: #1d2733; --soft: #5d6b7a; --line: #d9dfe6; --deep: #1f4e79; color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; color: var(--deep); }
p { margin: .4rem 0; }
.soft { color: var(--soft); }
img { max-width: 100%; height: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.5rem; }
.tile span { color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); }
th, td { vertical-align: top; overflow-wrap: anywhere; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
td div + div { margin-top: .15rem; }
table.steps { table-layout: fixed; width: 100%; font-size: .9rem; }
table.steps td div:first-child { font-weight: 500; }
.scroll { overflow-x: auto; max-height: 34rem; overflow-y: auto; }
table.dense { font-size: .82rem; width: 100%; }
table.dense th, table.dense td { padding: .2rem .7rem .2rem 0; overflow-wrap: normal; }
table.dense th { position: sticky; top: 0; background: #fff; vertical-align: bottom; }
table.dense td.n { white-space: nowrap; }
table.dense td:first-child { overflow-wrap: anywhere; min-width: 11rem; }
pre { background: #f4f6f8; border: 1px solid var(--line); border-radius: .4rem; }
pre { padding: .7rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.45; }
summary { cursor: pointer; color: var(--deep); margin: .5rem 0; }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; `parts` are HTML."""
    head = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
    ]
    return "\n".join([*head, *parts, "</body></html>"])


def tiles(*numbers: tuple[str, str]) -> str:
    """Return large numbers with what they are below."""
    inner = "".join(
        f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for value, name in numbers
    )
    return f"<div class=tiles>{inner}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, look: str = "") -> str:
    """Return an HTML table; numbers are right-aligned, a list is one line each.

    `look` is a class of `STYLE`.
    """
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
    lines += ["".join(cell(value) for value in row) for row in rows]
    start = f"<table class={look}>" if look else "<table>"
    return start + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def scrolled(inner: str) -> str:
    """Return HTML in a frame of its own, for tables that are too large for a page."""
    return f"<div class=scroll>{inner}</div>"


def folded(summary: str, inner: str) -> str:
    """Return HTML that shows when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre><code>{escape(text)}</code></pre>"


def cell(value: object) -> str:
    """Return one table cell."""
    if isinstance(value, list):
        return "<td>" + "".join(f"<div>{escape(line)}</div>" for line in value) + "</td>"
    text = str(value)
    number = text[:1].isdigit() and not text.startswith("0x")
    return f"<td class=n>{escape(text)}</td>" if number else f"<td>{escape(text)}</td>"


def paragraph(text: object, *, soft: bool = False) -> str:
    """Return text as a paragraph."""
    return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>"


def heading(text: str) -> str:
    """Return the heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def image(uri: str, name: str) -> str:
    """Return a figure; `name` is read where it cannot be seen."""
    return f"<p><img src='{escape(uri)}' alt='{escape(name)}'></p>"


def data_uri(png: bytes) -> str:
    """Return a PNG as an address that carries it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def escape(value: object) -> str:
    """Return `value` as HTML text."""
    return html.escape(str(value))
