"""`hypersigma-data`: raw scenes to versions, shards and schedules."""

import logging
from collections.abc import Callable
from typing import Any

import typer
from rich.logging import RichHandler

from pipeline.commands import builds, scenes, schedule, versions
from pipeline.commands.audit import audit
from pipeline.commands.importing import import_
from pipeline.commands.output import err
from pipeline.commands.query import query
from pipeline.commands.report import report
from pipeline.commands.shards import shards

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw hyperspectral scenes to a versioned set of tiles, and to shards made from it.",
)

COMMANDS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("synth", scenes.synth, "demo/raw --scenes 5 --seed 7"),
    ("inspect", scenes.inspect, "raw/*.ZIP --html qa"),
    ("build", builds.build, "dataset/demo store=demo/store"),
    ("status", builds.status, "dataset/demo"),
    ("retry", builds.retry, "dataset/demo --failed"),
    ("gc", builds.gc, "demo/store --older-than 30d"),
    ("serve", schedule.serve, "dataset/demo 'schedule=*/5 * * * *'"),
    ("deploy", schedule.deploy, "dataset/demo"),
    ("versions", versions.versions, "demo/store"),
    ("diff", versions.diff, "v1 v2 demo/store"),
    ("tag", versions.tag, "paper-2026 v2 demo/store"),
    ("rollback", versions.rollback, "v1 demo/store"),
    ("shards", shards, "demo/store demo/shards --version v2"),
    ("import", import_, "HyperGlobal-450K my_shards --jobs 8"),
    ("audit", audit, "demo/store --out certificate.json"),
    ("query", query, "\"cloud < 0.1 and sensor = 'ahsi'\" demo/store"),
    ("report", report, "demo/store demo/card --version v2"),
)
"""In the order of help: name, function, and the arguments of its example."""

for _name, _command, _arguments in COMMANDS:
    app.command(_name, epilog=f"Example: hypersigma-data {_name} {_arguments}")(_command)


@app.callback()
def main() -> None:
    """Set up logging: to stderr, so that --json stays clean."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_path=False, show_time=err.is_terminal)],
    )
    # GDAL's warning of slow seeks in tgz is of no use: readers read it in one pass.
    logging.getLogger("rasterio").setLevel(logging.ERROR)
    for ours in ("pipeline", "storage"):
        logging.getLogger(ours).setLevel(logging.INFO)


if __name__ == "__main__":
    app()
