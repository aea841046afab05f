"""`hypersigma-data`: raw scenes to versions, shards and schedules."""

import logging
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.table import Table

import configs
from pipeline import synth
from pipeline.build import DatasetConfig, build_dataset
from pipeline.commands import builds, schedule
from pipeline.commands.audit import audit
from pipeline.commands.importing import import_
from pipeline.commands.output import (
    ConfigArgument,
    JsonOption,
    StoreArgument,
    complain,
    err,
    out,
    print_build,
    print_facts,
    print_json,
    said_in_words,
    say,
)
from pipeline.commands.query import query
from pipeline.commands.report import report
from pipeline.commands.shards import shards
from pipeline.inspect import inspect_scene
from pipeline.readers import open_scene, verify
from pipeline.recipe import load_recipe
from pipeline.split import SplitConfig
from storage import store
from storage.drift import drift

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Raw hyperspectral scenes to a versioned set of tiles, and to shards made from it.",
)
logger = logging.getLogger("pipeline")


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


@app.command(name="synth", epilog="Example: hypersigma-data synth demo/raw --scenes 5 --seed 7")
def synth_command(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the products.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many products.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first product.")] = 0,
) -> None:
    """Write synthetic raw products, with their truth under OUT/truth."""
    with said_in_words():
        written = synth.write_products(folder, scenes=scenes, seed=seed, first=first, progress=say)
        say(f"{len(written)} products in {folder}, their truth in {folder / 'truth'}")


@app.command(epilog="Example: hypersigma-data inspect raw/*.ZIP --html qa")
def inspect(
    scenes: Annotated[
        list[str], typer.Argument(metavar="SCENE...", help="Archives or product folders.")
    ],
    as_json: JsonOption = False,
    pages: Annotated[
        Path | None, typer.Option("--html", metavar="OUT", help="Folder for a QA page a scene.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="A recipe file or name; the pages show what it does.")
    ] = "reflectance",
) -> None:
    """Tell what a raw product is: sensor, bands, sun, valid area, problems.

    With --html, write a self-contained page, its pictures and its numbers as JSON for each scene. A
    scene that fails is named; exit code 1 then, with the others done.
    """
    with said_in_words():
        tell = page_writer(pages, recipe) if pages else inspect_scene
        found = []
        for scene in scenes:
            try:
                found.append(tell(scene))
            except Exception as error:  # a scene is a unit of failure: name it, go on
                expected = isinstance(error, ValueError | OSError | LookupError)
                text = str(error) if expected else f"{type(error).__name__}: {error}"
                complain(text if scene in text else f"{scene}: {text}")
                if not expected:
                    logger.error("%s", scene, exc_info=error)
                continue
            if pages and not as_json:
                say(f"{scene}: {found[-1]['page']}")
            elif not as_json:
                print_facts(found[-1])
        if as_json:
            print_json(found[0] if len(scenes) == len(found) == 1 else found)
        raise typer.Exit(0 if len(found) == len(scenes) else 1)


def page_writer(folder: Path, recipe: str) -> Callable[[str], dict[str, Any]]:
    """Return what writes a scene's page into `folder` and says where."""
    # Matplotlib takes a second to load: not before it is needed.
    from pipeline.qa.gather import gather
    from pipeline.qa.pages import write_page

    loaded, split = load_recipe(recipe), SplitConfig()
    written: dict[str, str] = {}

    def write(scene: str) -> dict[str, Any]:
        product = open_scene(scene)
        quality = gather(product, loaded, split)
        verify(product)
        scene_id = str(quality.facts["scene_id"])
        if scene_id in written:
            raise ValueError(f"{scene}: scene {scene_id} is also {written[scene_id]}")
        page = write_page(quality, folder)
        written[scene_id] = scene
        return {"scene": scene, "page": str(page), "json": str(page.with_suffix(".json"))}

    return write


@app.command(epilog="Example: hypersigma-data build dataset/demo store=demo/store")
def build(
    config: ConfigArgument,
    overrides: Annotated[list[str] | None, typer.Argument(help="section.field=value")] = None,
    as_json: JsonOption = False,
    prefect: Annotated[bool, typer.Option(help="Run it as a Prefect flow.")] = False,
) -> None:
    """Build one dataset version from all scenes that are not yet in the store.

    A scene that fails is named and left out; exit code 1 then, with the others published.
    """
    # As Ctrl-C: what is finished is kept. Sent by systemd, SLURM and `docker stop`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with said_in_words():
        dataset = configs.load(DatasetConfig, config, overrides or ())
        if prefect:
            raise typer.Exit(
                schedule.flow("build", config, *(overrides or ()), *["--json"] * as_json)
            )
        report = build_dataset(dataset)
        print_build(report, as_json=as_json)
        raise typer.Exit(1 if report.failures else 0)


app.command(epilog="Example: hypersigma-data status dataset/demo")(builds.status)
app.command(epilog="Example: hypersigma-data retry dataset/demo --failed")(builds.retry)
app.command(epilog="Example: hypersigma-data gc demo/store --older-than 30d")(builds.gc)
_SERVE = "Example: hypersigma-data serve dataset/demo 'schedule=*/5 * * * *'"
app.command(epilog=_SERVE)(schedule.serve)
app.command(epilog="Example: hypersigma-data deploy dataset/demo")(schedule.deploy)


@app.command(epilog="Example: hypersigma-data versions demo/store")
def versions(location: StoreArgument, as_json: JsonOption = False) -> None:
    """List the versions of a store, oldest first; the current one is marked."""
    with said_in_words():
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


@app.command(epilog="Example: hypersigma-data diff v1 v2 demo/store")
def diff(a: str, b: str, location: StoreArgument, as_json: JsonOption = False) -> None:
    """List the scenes and tiles that versions A and B do not share, or have otherwise.

    And how far the pixels moved: per band the population stability index (PSI), of B against A.
    """
    with said_in_words():
        repo = store.open_repository(location)
        change = asdict(store.diff(repo, a, b))
        drifts = {sensor: asdict(found) for sensor, found in drift(repo, a, b).items()}
        if as_json:
            print_json({**change, "drift": drifts})
            return
        print_facts({name: some(found) for name, found in change.items()})
        print_drift(drifts)


@app.command(epilog="Example: hypersigma-data tag paper-2026 v2 demo/store")
def tag(name: str, version: str, location: StoreArgument) -> None:
    """Give a version a name of its own; names are never moved or used again."""
    with said_in_words():
        store.tag(store.open_repository(location), name, version)
        say(f"{name} is {version}")


@app.command(epilog="Example: hypersigma-data rollback v1 demo/store")
def rollback(version: str, location: StoreArgument) -> None:
    """Make an older version the current one; the newer ones stay readable by their tags."""
    with said_in_words():
        repo = store.open_repository(location)
        with store.commit_lock(location):
            store.rollback(repo, version)
        say(f"the current version of {location} is {version}")


app.command(epilog="Example: hypersigma-data shards demo/store demo/shards --version v2")(shards)
_IMPORT = "import HyperGlobal-450K my_shards --jobs 8"
app.command(name="import", epilog=f"Example: hypersigma-data {_IMPORT}")(import_)
app.command(epilog="Example: hypersigma-data audit demo/store --out certificate.json")(audit)
_QUERY = "query \"cloud < 0.1 and sensor = 'ahsi'\" demo/store"
app.command(epilog=f"Example: hypersigma-data {_QUERY}")(query)
app.command(epilog="Example: hypersigma-data report demo/store demo/card --version v2")(report)


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


if __name__ == "__main__":
    app()
