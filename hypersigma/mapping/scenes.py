"""Map a scene of any size by a model of a task: `hypersigma-train predict` of an image or a store.

The rows that are done lie in a hidden file beside the map until it is whole, so a run that was cut
off goes on behind them; the map then has the same bytes.
"""

import dataclasses
import hashlib
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat

from hypersigma.checkpoint import Checkpoint
from hypersigma.cubefit import check_facts, open_run
from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.cubes.raster import DATA_SUFFIXES, data_file
from hypersigma.mapping.cog import thinned, write_cog
from hypersigma.mapping.colours import bands_shown, draw_classes, draw_numbers, preview_step
from hypersigma.mapping.rows import Rows
from hypersigma.mapping.seen import NO_CLASS, Output, Seen, seen
from hypersigma.mapping.sources import (
    CubeSource,
    OneDate,
    PairSource,
    RasterSource,
    Source,
    StoreSource,
    kind_of,
)
from hypersigma.mapping.strips import Opened, strips
from hypersigma.mapping.units import check_values
from hypersigma.processes import pick_device
from hypersigma.runlog import plain_json, progress
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.task import Facts, TaskConfig
from storage.store import (
    find_version,
    open_repository,
    open_version,
    scene_dataset,
    scenes,
)

logger = logging.getLogger(__name__)

SUFFIXES = (*DATA_SUFFIXES, ".hdr", ".tif", ".tiff", ".mat", ".npy", ".npz")
ONE_SPLIT = {"block_km": 100, "guard_m": 0, "fractions": {"test": 1.0}}
"""No tile is left out because it lies between two."""
BUILD = (
    "from hypersigma.orphans import end_with_parent; end_with_parent(); "
    "import runpy; runpy.run_module('pipeline', run_name='__main__')"
)
"""What a process runs that builds a store and ends with the one that waits for it."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MapConfig:
    """What `hypersigma-train predict` reads where a task on cubes maps a scene.

    The scene is one of `image`, `store` with `scene_id`, `product`, and `data`.
    """

    checkpoint: Path
    """A run (its best checkpoint), or one checkpoint."""
    out: Path
    """Folder for `<scene>_<task>_<map>.tif`, `<scene>_<task>.png` and `<scene>_<task>.json`."""
    image: Path | None = None
    """A GeoTIFF, an ENVI cube or its header."""
    other: Path | None = None
    """Of a change detection: the image of the second date; `image` is the first."""
    scale: PositiveFloat = 1.0
    """Of an image: the stored number of a physical 1, such as a reflectance."""
    nodata: float | None = None
    """Of an image: the stored number of no measurement; null: the file's own."""
    store: str | None = None
    """A tile store that `hypersigma-data build` wrote: a folder or URL."""
    scene_id: str | None = None
    """Which scene of it."""
    version: str | None = None
    """Tag of the store's version; null: the newest."""
    product: Path | None = None
    """A raw product; `hypersigma-data build` makes a store of it beside the map first."""
    recipe: str = "reflectance_map"
    """Of a raw product: what is done to it, as a recipe's name or file."""
    data: str | None = None
    """A benchmark's name or YAML file, whose cube is mapped."""
    root: Path = Path("data")
    """Folder of the public files."""
    workers: NonNegativeInt = 0
    """Processes that share the scene; 0: this one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def map_scene(config: MapConfig) -> dict[str, Any]:
    """Map a scene, or go on with it, and return what was written.

    Memory: a strip of the scene as high as a window, and one of answers.

    Raises:
        CheckpointError: There is no whole checkpoint of a task on cubes.
        ValueError: The scene has other bands or units than the model, no pixel of it was measured,
            or the task makes no map of a scene.
        FileNotFoundError: There is no such image.
        BrokenProcessPool: A worker was killed; the same command goes on.
    """
    ways = [config.image, config.store, config.product, config.data]
    if sum(way is not None for way in ways) != 1:
        raise ValueError("expected one of image, store, product and data, got none or several")
    found, trained = open_run(config.checkpoint)
    shown = open_model(config)
    _check_dates(config, trained.task)
    if config.product is not None:
        with _store_of_product(config) as (store, scene_id):
            of_store = dataclasses.replace(config, store=store, scene_id=scene_id, product=None)
            origin = {"product": str(config.product.resolve()), "recipe": config.recipe}
            return _mapped(of_store, found, trained, shown, origin)
    return _mapped(config, found, trained, shown, {})


def _mapped(
    config: MapConfig, found: Checkpoint, trained: TaskConfig, shown: Seen, said: dict[str, Any]
) -> dict[str, Any]:
    facts = Facts.from_json(found.state["facts"])
    source, origin = open_source(config, facts, trained.task)
    if said:
        # The same file name may hold another product by now.
        origin = said | {"snapshot": origin["snapshot"]}
    here = Facts(source.bands, source.wavelength, units=source.units)
    check_facts(found, here, where=source.name)
    check_values(shown.model, source)
    identity = {
        "scene": source.name, **origin, "checkpoint": str(found.folder.resolve()),
        "weights": found.state["files"], "task": trained.task, "mode": trained.mode,
        "size": trained.size, "step": found.state["step"],
    }  # fmt: skip
    config.out.mkdir(parents=True, exist_ok=True)
    stem = f"{stem_of(source.name)}_{trained.task}"
    path = config.out / f".{stem}.rows"
    with alone(path), Rows(path, identity) as rows:
        _fill(rows, config, shown, source)
        told = {key: value for key, value in identity.items() if key != "weights"}
        result = told | _write(config.out, stem, rows, shown, source, told)
        (config.out / f"{stem}.json").write_text(plain_json(result), encoding="utf-8")
        rows.remove()
    return result


def stem_of(name: str) -> str:
    """Return a scene's name without what says which kind of file it is in."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _check_dates(config: MapConfig, task: str) -> None:
    """Refuse one date for a change detection, and two for anything else."""
    changes, pair = task == "change_detection", config.other is not None
    if config.data is None and (changes != pair or (pair and config.image is None)):
        raise ValueError(
            "expected image and other for a change detection, or data, and no other else; got a "
            f"checkpoint of {task}, image: {config.image} and other: {config.other}"
        )


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only one who works on a map's rows.

    Raises:
        ValueError: Another process does.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        with lock:
            yield
            path.with_suffix(".lock").unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(
            f"{path.parent}: another process makes this map; wait for it, or stop it"
        ) from error


def open_source(config: MapConfig, facts: Facts, task: str) -> tuple[Source, dict[str, Any]]:
    """Open the scene without the bands that the model's data left out.

    Returns:
        The scene, of both dates for a change detection; and what it is, as plain data.

    Raises:
        ValueError: There is one date where two are needed, or they do not fit each other.
    """
    sources, origin = _opened(config)
    dates = 2 if task == "change_detection" else 1
    if len(sources) < dates:
        raise ValueError(
            f"{sources[0].name}: expected two dates for a change detection, got one; name the "
            "second file as `other`"
        )
    sources = sources[:dates]
    for one in sources:
        if one.bands == facts.bands + len(facts.left_out):
            one.leave_out(facts.left_out)
    return sources[0] if len(sources) == 1 else PairSource(*sources), origin


def _opened(config: MapConfig) -> tuple[list[OneDate], dict[str, Any]]:
    """Open the one date or both."""
    if config.image is not None:
        origin: dict[str, Any] = {"scale": config.scale, "nodata": config.nodata}
        dates: list[OneDate] = []
        for name, path in (("image", config.image), ("other", config.other)):
            if path is not None:
                dates.append(RasterSource(path, scale=config.scale, nodata=config.nodata))
                stats = [one.stat() for one in {path, data_file(path)}]
                sizes = sorted((stat.st_size, stat.st_mtime_ns) for stat in stats)
                origin[name] = [str(path.resolve()), *sizes]
        return dates, origin
    if config.store is not None:
        if config.scene_id is None:
            raise ValueError("expected scene_id beside store, got none")
        version = find_version(open_repository(config.store), config.version)
        scene = scene_dataset(open_version(config.store, version.tag), config.scene_id)
        return [StoreSource(scene)], {
            "store": config.store, "version": version.tag, "snapshot": version.snapshot
        }  # fmt: skip
    benchmark = read_benchmark(str(config.data), config.root)
    cubes = [cube for cube in (benchmark.cube, benchmark.other) if cube is not None]
    return [CubeSource(cube) for cube in cubes], {"data": benchmark.name} | benchmark.origin


def open_model(config: MapConfig) -> Seen:
    """Open the checkpoint's model on its device."""
    found, trained = open_run(config.checkpoint)
    facts = Facts.from_json(found.state["facts"])
    model = CUBE_TASKS[trained.task].build(trained, facts)
    model.load_state_dict(found.weights())
    return seen(trained, model.to(pick_device(config.device)), facts)


def opened(config: MapConfig) -> Opened:
    """Open what a worker needs."""
    shown = open_model(config)
    found, trained = open_run(config.checkpoint)
    source, _ = open_source(config, Facts.from_json(found.state["facts"]), trained.task)
    return shown.run, shown.source(source)


def _fill(rows: Rows, config: MapConfig, shown: Seen, source: Source) -> None:
    """Add the rows that are not there yet.

    By the same number of threads the same bits; workers have one each.
    """
    count = len(shown.windows.rows(source.height))
    if rows.strips:
        logger.info("goes on behind row %d of %d", rows.count, source.height)
    found = strips(
        partial(opened, config), shown.windows, first=rows.strips, workers=config.workers
    )
    with progress(found, total=count - rows.strips, title="strips mapped") as shown_strips:
        for answers_KnW, valid_nW in shown_strips:
            rows.append(answers_KnW, valid_nW)
    if not any(rows.read(row, row + 1)[1].any() for row in range(rows.count)):
        rows.remove()
        raise ValueError(
            f"{source.name}: expected pixels with a measurement in all {source.bands} bands, got "
            "none; a band that was never measured has to be left out (leave_out:) of the data that "
            "the model is trained on"
        )


def _write(
    out: Path, stem: str, rows: Rows, shown: Seen, source: Source, said: dict[str, Any]
) -> dict[str, Any]:
    """Write all maps and the preview of the first one."""
    files = {}
    tags = {key: str(value) for key, value in said.items()}
    for name, output in shown.outputs.items():
        path = out / f"{stem}_{name}.tif"
        write_cog(
            path, _bands(rows, output), height=source.height, width=source.width,
            placed=source.placed, layer=dataclasses.replace(output.layer, tags=tags),
        )  # fmt: skip
        files[name] = str(path)
    name, output = next(iter(shown.outputs.items()))
    step = preview_step(source.height, source.width)
    bands = bands_shown(len(output.layer.names))
    read = _bands(rows, output)
    small_knW = thinned(lambda first, last: read(first, last)[bands], source.height, step)
    preview = out / f"{stem}.png"
    if output.layer.colours:
        (names,) = (list(tags.values()) for tags in output.layer.band_tags)
        draw_classes(preview, small_knW[0], names, stem)
    else:
        draw_numbers(preview, small_knW, [output.layer.names[band] for band in bands], stem)
    return {"maps": files, "preview": str(preview), "georeference": kind_of(source.placed),
            "height": source.height, "width": source.width}  # fmt: skip


def _bands(rows: Rows, output: Output) -> Callable[[int, int], NDArray[Any]]:
    """Return what reads a map's bands, with nothing where the scene has no measurement."""

    def read(first: int, last: int) -> NDArray[Any]:
        answers_KnW, valid_nW = rows.read(first, last)
        found = output.of(answers_KnW)
        nothing = NO_CLASS if output.layer.colours else np.nan
        return np.where(valid_nW, found, np.asarray(nothing, found.dtype))

    return read


@contextmanager
def _store_of_product(config: MapConfig) -> Iterator[tuple[str, str]]:
    """Build a store of a raw product beside the map; it is removed behind a map that is whole.

    Yields:
        The store, and the scene in it.

    Raises:
        FileNotFoundError: There is no such product.
        ValueError: It cannot be built.
    """
    assert config.product is not None  # noqa: S101
    product = config.product.resolve()
    if not product.exists():
        raise FileNotFoundError(f"{config.product}: expected a raw product, found nothing")
    # A folder, as a build leaves more than the store; other products and recipes have others.
    told = hashlib.sha256(f"{product} {config.recipe}".encode()).hexdigest()[:8]
    built = config.out / f".{product.name}.{told}"
    built.mkdir(parents=True, exist_ok=True)
    dataset = {"name": "map", "source": str(product), "store": str(built / "store"),
               "recipe": config.recipe, "split": ONE_SPLIT}  # fmt: skip
    path = built / "dataset.yaml"
    with alone(path):
        path.write_text(yaml.safe_dump(dataset), encoding="utf-8")
        # A process of its own: the trainer knows nothing of raw products.
        done = subprocess.run([sys.executable, "-c", BUILD, "build", str(path), "--json"],
                              stdout=subprocess.PIPE)  # fmt: skip
        if done.returncode:
            raise ValueError(
                f"{config.product}: `hypersigma-data build` failed with status {done.returncode}; "
                "what it said stands above"
            )
        (scene_id,) = scenes(open_repository(str(built / "store")))
        yield str(built / "store"), scene_id
        shutil.rmtree(built)
