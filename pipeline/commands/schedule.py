"""`serve` and `deploy`: a dataset that is built when its schedule says so."""

import subprocess
import sys
from typing import Annotated

import typer

import configs
from pipeline.commands.output import ConfigArgument, said_in_words

OverridesArgument = Annotated[list[str] | None, typer.Argument(help="section.field=value")]


def serve(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    once: Annotated[bool, typer.Option("--once", help="Once, now, and end.")] = False,
) -> None:
    """Build, audit, shard and report the dataset on its cron schedule, here, until interrupted.

    With --once, exit code 1 if a scene failed or the version leaks.
    """
    with said_in_words():
        from pipeline.build import DatasetConfig

        configs.load(DatasetConfig, config, overrides or ())
        raise typer.Exit(flow("run" if once else "serve", config, *(overrides or ())))


def deploy(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Register the same with a Prefect server, for the workers of the pool in prefect.yaml.

    The server is the one at PREFECT_API_URL.
    """
    with said_in_words():
        from pipeline.build import DatasetConfig

        configs.load(DatasetConfig, config, overrides or ())
        raise typer.Exit(flow("deploy", config, *(overrides or ())))


def flow(*arguments: str) -> int:
    """Run `python -m pipeline.flows` in a process of its own and return its exit code."""
    try:
        return subprocess.run([sys.executable, "-m", "pipeline.flows", *arguments]).returncode
    except KeyboardInterrupt:  # the child got it too and has ended by itself
        return 0
