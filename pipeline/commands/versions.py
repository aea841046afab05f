"""`versions`, `diff`, `tag` and `rollback`: what a store holds, and what is current."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from pipeline.commands.output import (
    JsonOption,
    StoreArgument,
    out,
    print_facts,
    print_json,
    said_in_words,
    say,
)


def versions(location: StoreArgument, as_json: JsonOption = False) -> None:
    """List the versions of a store, oldest first; the current one is marked."""
    with said_in_words():
        from storage import store

        found = store.versions(store.open_repository(location))
        if as_json:
            print_json([asdict(version) for version in found])
            return
        table = Table("", "version", "scenes", "tiles", "written", "recipe", "change", box=None)
        for v in found:
            written, change = f"{v.written_at:%Y-%m-%d %H:%M}", v.message.partition(": ")[2]
            row = (str(v.scenes), str(v.tiles), written, v.recipe_hash[:12], change)
            table.add_row("*" if v.is_head else "", v.tag, *row)
        out.print(table)


def diff(a: str, b: str, location: StoreArgument, as_json: JsonOption = False) -> None:
    """List the scenes and tiles that versions A and B do not share, or have otherwise.

    And how far the pixels moved: per band the population stability index (PSI), of B against A.
    """
    with said_in_words():
        from storage import store
        from storage.drift import drift

        repo = store.open_repository(location)
        change = asdict(store.diff(repo, a, b))
        drifts = {sensor: asdict(found) for sensor, found in drift(repo, a, b).items()}
        if as_json:
            print_json({**change, "drift": drifts})
            return
        print_facts({name: some(found) for name, found in change.items()})
        print_drift(drifts)


def tag(name: str, version: str, location: StoreArgument) -> None:
    """Give a version a name of its own; names are never moved or used again."""
    with said_in_words():
        from storage import store

        store.tag(store.open_repository(location), name, version)
        say(f"{name} is {version}")


def rollback(version: str, location: StoreArgument) -> None:
    """Make an older version the current one; the newer ones stay readable by their tags."""
    with said_in_words():
        from storage import store

        repo = store.open_repository(location)
        with store.commit_lock(location):
            store.rollback(repo, version)
        say(f"the current version of {location} is {version}")


def some(names: tuple[str, ...]) -> str:
    """Return how many names there are, and the first of them."""
    shown = ", ".join([*names[:5], *["..."] * (len(names) > 5)])
    return f"{len(names)}: {shown}" if names else "0"


def print_drift(drifts: dict[str, dict[str, Any]]) -> None:
    """Print the PSI of each sensor's bands as a table."""
    if not drifts:
        return
    table = Table("sensor", "PSI max", "median", "bands >= 0.1", "bands >= 0.25", box=None)
    for sensor, found in drifts.items():
        sizes = ("-" if found[key] is None else f"{found[key]:.3f}" for key in ("max", "median"))
        bands = (", ".join(map(str, found[key])) or "none" for key in ("notable", "large"))
        table.add_row(sensor, *sizes, *bands)
    out.print(table, markup=False)
