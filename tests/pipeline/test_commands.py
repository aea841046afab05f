"""`hypersigma-data` answers at once, and every command has an example that is one."""

import shlex
import subprocess
import sys

import click
import pytest
import typer.main

from pipeline.__main__ import COMMANDS, app

HEAVY = ("xarray", "dask", "icechunk", "zarr", "rasterio", "pandas", "pyarrow", "scipy",
         "matplotlib", "duckdb")  # fmt: skip


def test_help_loads_nothing_heavy():
    code = f"import sys, pipeline.__main__; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "arguments"), [(one[0], one[2]) for one in COMMANDS])
def test_examples_are_taken(name, arguments):
    command = typer.main.get_command(app).commands[name]
    assert arguments in command.epilog
    with click.Context(command) as context:
        command.parse_args(context, shlex.split(arguments))
