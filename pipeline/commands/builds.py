"""`build`, and `status`, `retry` and `gc`: what it left behind, and what to do about it."""

import re
import signal
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

import configs
from pipeline.commands.output import (
    ConfigArgument,
    JsonOption,
    StoreArgument,
    out,
    print_build,
    print_json,
    said_in_words,
    say,
)
from pipeline.commands.schedule import OverridesArgument, flow

_AGE = re.compile(r"(\d+)\s*([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def build(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
    prefect: Annotated[bool, typer.Option(help="Run it as a Prefect flow.")] = False,
) -> None:
    """Build one dataset version from all scenes that are not yet in the store.

    A scene that fails is named and left out; exit code 1 then, with the others published.
    """
    # As Ctrl-C: what is finished is kept. Sent by systemd, SLURM and `docker stop`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with said_in_words():
        from pipeline.build import DatasetConfig, build_dataset

        dataset = configs.load(DatasetConfig, config, overrides or ())
        if prefect:
            raise typer.Exit(flow("build", config, *(overrides or ()), *["--json"] * as_json))
        report = build_dataset(dataset)
        print_build(report, as_json=as_json)
        raise typer.Exit(1 if report.failures else 0)


def status(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    every: Annotated[
        bool, typer.Option("--all", help="List the scenes that are done, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say of each product at the source whether it is new, running, done, failed or quarantined."""
    with said_in_words():
        from pipeline.build import DatasetConfig, scene_states
        from pipeline.states import STATES

        dataset = configs.load(DatasetConfig, config, overrides or ())
        states = scene_states(dataset)
        if as_json:
            print_json([asdict(state) for state in states])
            return
        counts = Counter(state.state for state in states)
        say(", ".join(f"{counts[name]} {name}" for name in STATES))
        for state in states:
            if every or state.state != "done":
                tries = [f"{state.attempts} tries"] if state.attempts > 1 else []
                about = ", ".join([*tries, *([f"since {state.at}"] if state.at else [])])
                say(f"{state.state:11s} {state.product}  {about}".rstrip())
                if state.reason:
                    out.print(Padding(Text(state.reason), (0, 0, 0, 12)))


def retry(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Those that failed or are in quarantine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try again only the scenes that failed or are in quarantine; the next version if one is made.

    Exit code 1 if one fails again.
    """
    with said_in_words():
        from pipeline.build import DatasetConfig, build_dataset

        if not failed:
            raise configs.ConfigError("say which scenes to try again: --failed")
        dataset = configs.load(DatasetConfig, config, overrides or ())
        report = build_dataset(dataset, only_failed=True)
        print_build(report, as_json=as_json)
        raise typer.Exit(1 if report.failures else 0)


def gc(
    location: StoreArgument,
    older_than: Annotated[
        str, typer.Option(help="Age that an object must have: 12h, 30d, 4w.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what no version needs: leftovers of builds that failed or were cut off.

    All versions stay, so what reads one is never disturbed; builds wait meanwhile.
    """
    with said_in_words():
        from storage import store

        match = _AGE.fullmatch(older_than)
        if match is None:
            raise configs.ConfigError(
                f"--older-than must be such as 12h, 30d or 4w, got {older_than}"
            )
        age = timedelta(**{_UNITS[match[2]]: int(match[1])})
        removed = store.collect_garbage(location, age, dry_run=dry_run)
        if as_json:
            print_json(removed)
        else:
            verb = "would be removed" if dry_run else "removed"
            say(f"{removed['objects']} objects {verb}, {removed['bytes'] / 1e6:.1f} MB")
