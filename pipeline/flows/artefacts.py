"""What Prefect's pages show of a run: the build's table, quicklooks, links to store and report."""

import base64
import re
from pathlib import Path

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
)

from pipeline import outputs
from pipeline.build import BuildReport, DatasetConfig
from pipeline.quicklook import quicklook
from storage.location import local_path


def show_build(config: DatasetConfig, built: BuildReport) -> None:
    """Show what a build did, its version, and the first tiles of the scenes that it made."""
    create_markdown_artifact(
        key=_key(config, "build"), markdown=outputs.build_table(config.store, built)
    )
    if built.version is None:
        return
    folder = local_path(config.store)
    create_link_artifact(
        key=_key(config, "store"),
        link=config.store if folder is None else folder.as_uri(),
        link_text=f"store of {config.name}, {built.version}",
    )
    if picture := quicklook(config.store, built.version, built.added):
        # No server of ours shows files to browsers, so the picture is in its address.
        data = base64.b64encode(picture).decode()
        create_image_artifact(
            image_url=f"data:image/png;base64,{data}",
            key=_key(config, "quicklook"),
            description=f"First tiles of the first scenes that {built.version} added",
        )


def show_report(config: DatasetConfig, folder: Path) -> None:
    """Link a version's dataset card."""
    page = (folder / "index.html").absolute()
    create_link_artifact(
        key=_key(config, "report"),
        link=page.as_uri(),
        link_text=f"dataset card of {config.name}, {folder.name}",
    )


def _key(config: DatasetConfig, what: str) -> str:
    """Return a key of small letters, digits and dashes, which is all that Prefect takes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{config.name}-{what}".lower()).strip("-")
