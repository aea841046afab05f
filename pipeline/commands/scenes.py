"""`synth` and `inspect`: raw products, made and looked at."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.output import (
    JsonOption,
    complain,
    print_facts,
    print_json,
    said_in_words,
    say,
)

logger = logging.getLogger("pipeline")


def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the products.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many products.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first product.")] = 0,
) -> None:
    """Write synthetic raw products, with their truth under OUT/truth."""
    with said_in_words():
        from pipeline import synth as maker

        written = maker.write_products(folder, scenes=scenes, seed=seed, first=first, progress=say)
        say(f"{len(written)} products in {folder}, their truth in {folder / 'truth'}")


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
        from pipeline.inspect import inspect_scene

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
    from pipeline.qa.gather import gather
    from pipeline.qa.pages import write_page
    from pipeline.readers import open_scene, verify
    from pipeline.recipe import load_recipe
    from pipeline.split import SplitConfig

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
