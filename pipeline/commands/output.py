"""What commands print, how they fail, and the arguments that several of them take.

Commands import what they work with when they run: `--help` need not wait seconds for it.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import configs

if TYPE_CHECKING:
    from pipeline.build import BuildReport

out = Console()
err = Console(stderr=True)

StoreArgument = Annotated[str, typer.Argument(help="Folder or URL of a tile store.")]
ConfigArgument = Annotated[
    str, typer.Argument(help="A dataset YAML, or the name of a shipped one such as dataset/demo.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@contextmanager
def said_in_words() -> Iterator[None]:
    """Turn an expected failure into one line on stderr and exit code 1 (2 for a bad config)."""
    try:
        yield
    except configs.ConfigError as error:
        complain(str(error))
        raise typer.Exit(2) from error
    except Exception as error:
        if not isinstance(error, (ValueError, OSError, LookupError, *_store_errors())):
            raise
        complain(str(error))
        raise typer.Exit(1) from error


def _store_errors() -> list[type[Exception]]:
    return [sys.modules["icechunk"].IcechunkError] if "icechunk" in sys.modules else []


def complain(message: str) -> None:
    """Print one line as it is, in red on stderr."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line as it is."""
    out.print(message, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_facts(facts: dict[str, Any]) -> None:
    """Print a mapping as two columns."""
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
        table.add_row(name, text)
    out.print(table, markup=False)


def print_build(report: "BuildReport", *, as_json: bool) -> None:
    """Print what a build did."""
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        say(report.to_markdown())
