"""One self-contained page of all tables, with figures of each one's first seed."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import configs
from hypersigma.cubefit import MAPS_FILE, SPLIT_FILE
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.description import BenchmarkConfig, find_benchmark
from hypersigma.cubes.splits import load_split
from hypersigma.tables import figures
from hypersigma.tables.figures import Shown
from hypersigma.tables.results import (
    IN_SHORT,
    SUMMARY,
    Records,
    about,
    cells_of,
    columns_of,
    head,
    rows,
    summary,
    tables,
    time_of,
)  # fmt: skip
from storage import html

logger = logging.getLogger(__name__)


def write_page(path: Path, records: Records) -> Path:
    """Write the page about all cells."""
    path.write_text(html.document("Results", parts(records)), encoding="utf-8")
    return path


def parts(records: Records) -> Iterator[str]:
    """Yield the sections of the page, as HTML."""
    yield "<h1>Results</h1>"
    seeds = sorted({one["seed"] for one in records})
    yield html.paragraph(
        f"{len(records)} cells, seeds {', '.join(map(str, seeds))}; every number is of pixels that "
        "were held out, or of tasks that train without labels.", soft=True,
    )  # fmt: skip
    yield html.heading("In short")
    yield html.paragraph(IN_SHORT, soft=True)
    yield html.table(SUMMARY, summary(records))
    for title, mine in tables(records):
        yield html.heading(title)
        yield html.paragraph(about(mine).replace("`", ""), soft=True)
        yield table(mine)
        yield from _figures(mine)
        yield html.folded("the scene", _scene(mine[0]["config"]))
        yield html.folded("the task's config", html.code(_lines(mine[-1]["config"])))


def table(records: Records) -> str:
    """Return a table as HTML; the best of a column is bold."""
    columns, found = columns_of(records), rows(records)
    names = ["method", *head(columns), "seeds", "time"]
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in names)]
    for row, texts in zip(found, cells_of(found, columns), strict=True):
        cells = [html.cell(row.name)]
        for text, best in texts:
            inner = html.escape(text)
            cells.append(f"<td class=n>{f'<b>{inner}</b>' if best else inner}</td>")
        cells += [html.cell(row.seeds), html.cell(time_of(row))]
        lines.append("".join(cells))
    return html.scrolled("<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>")


def _figures(records: Records) -> Iterator[str]:
    """Draw what the first seed of each row said of the scene, where the scene is still there."""
    config = records[0]["config"]
    try:
        benchmark = read_benchmark(config["data"], config["root"])
    except (OSError, ValueError) as error:
        logger.warning("no figures of %s: %s", config["data"], error)
        yield html.paragraph(f"No figures: {error}", soft=True)
        return
    for name, uri in figures.draw(config["task"], benchmark, _shown(records)):
        yield html.image(uri, name)
        yield html.paragraph(name, soft=True)


def _shown(records: Records) -> list[Shown]:
    shown = []
    for name in dict.fromkeys(one["name"] for one in records):
        first = min((one for one in records if one["name"] == name), key=lambda one: one["seed"])
        path = Path(first["config"]["run"]) / MAPS_FILE
        if path.is_file():
            with np.load(path, allow_pickle=False) as file:
                maps = {key: file[key] for key in file.files}
            split = path.with_name(SPLIT_FILE)
            shown.append(Shown(name, maps, load_split(split) if split.is_file() else None))
    return shown


def _scene(config: Mapping[str, Any]) -> str:
    path, _ = find_benchmark(config["data"])
    scene = configs.load(BenchmarkConfig, path)
    lines = [html.paragraph(scene.title), html.paragraph(f"From: {scene.where}")]
    if scene.cite:
        lines.append(html.paragraph(scene.cite))
    return "".join([*lines, *(html.paragraph(trap) for trap in scene.traps)])


def _lines(plain: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in plain.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}")
    return "\n".join(line for line in lines if line)
