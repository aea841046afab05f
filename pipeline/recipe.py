"""A recipe: the ordered steps from scene to tiles, with all their numbers."""

import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import xarray as xr
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

import configs
from configs import ConfigError
from pipeline.quality.tiles import MEASURES, check_limits
from pipeline.sensors import SENSORS
from pipeline.split import SplitConfig, assign, record
from pipeline.steps import STEPS
from pipeline.steps.scores import RULES
from pipeline.tiling import tile

_FUNCTIONS: dict[str, Callable[..., xr.Dataset]] = {**STEPS, "tile": tile}
_ORDER = (
    ("bands",), ("detectors",), ("destripe",), ("coregister",), ("radiance",), ("mask",),
    ("scores",), ("smile",), ("reflectance", "surface", "product_reflectance"), ("normalize",),
    ("tile",),
)  # fmt: skip
"""Each step works on what those before it left; of those that share a place a recipe has one."""
_NOT_PARAMETERS = ("scene", "assign", "return")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Steps in their order; each a mapping of the step's name to its parameters.

    Parameters that are left out get the step's defaults on `load_recipe`, so that the hash covers
    every number that the tiles depend on.
    """

    name: str
    steps: tuple[Mapping[str, Mapping[str, Any] | None], ...]


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a shipped recipe (`reference`, `reflectance`) or that of a YAML file, checked.

    Raises:
        ConfigError: There is none, or a step or parameter is unknown or does not fit.
    """
    shipped = configs.CONFIG_DIR / "recipe" / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    recipe = configs.load(Recipe, path)
    steps = []
    for step in recipe.steps:
        if len(step) != 1:
            raise ConfigError(f"{path}: each step must be one name, got {sorted(step)}")
        ((name, parameters),) = step.items()
        steps.append({name: _parameters(name, parameters or {}, str(path))})
    names = [next(iter(step)) for step in steps]
    if "mask" not in names or names.count("tile") != 1 or names[-1] != "tile":
        raise ConfigError(f"{path}: a recipe must have mask, and tile as its end, got {names}")
    _check_order(names, str(path))
    _check_rules(steps[-1]["tile"], names, str(path))
    return Recipe(recipe.name, tuple(steps))


def _check_order(names: list[str], where: str) -> None:
    """Refuse steps that undo, repeat or come too late for one another."""
    place = {name: rank for rank, same in enumerate(_ORDER) for name in same}
    for before, after in itertools.pairwise(names):
        if place[before] >= place[after]:
            order = ", ".join(" | ".join(same) for same in _ORDER)
            raise ConfigError(
                f"{where}: {after} cannot come after {before}; each step at most once, in the "
                f"order {order}"
            )


def _check_rules(tile_parameters: Mapping[str, Any], names: list[str], where: str) -> None:
    """Refuse limits that no tile keeps, and rules on what no step of the recipe makes."""
    for column, limits in (tile_parameters["keep"] or {}).items():
        if column in MEASURES and column not in tile_parameters["measure"]:
            raise ConfigError(f"{where}: tile.keep has {column}: add it to tile.measure")
        if column.removesuffix("_fraction") in RULES and "scores" not in names:
            raise ConfigError(f"{where}: tile.keep has {column}, which needs the step scores")
        try:
            check_limits(column, limits)
        except ValueError as error:
            raise ConfigError(f"{where}: tile.{error}") from error


def recipe_json(recipe: Recipe, split: SplitConfig) -> str:
    """Return all that a scene's tiles follow from, beside the scene: canonical JSON.

    The split is part of it: tiles of two divisions of the Earth in one store would leak.

    Raises:
        FileNotFoundError: There is no land mask where the split's config says so.
        ValueError: It is no land mask, or not the one that was pinned.
    """
    steps = [{name: dict(given or {}) for name, given in step.items()} for step in recipe.steps]
    content = {"steps": steps, "split": record(split)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def recipe_hash(recipe: Recipe, split: SplitConfig) -> str:
    """Return the sha256 of `recipe_json`; the recipe's name does not count."""
    return hashlib.sha256(recipe_json(recipe, split).encode()).hexdigest()


def scene_recipe_hash(recipe: Recipe, split: SplitConfig, sensor: str) -> str:
    """Return the sha256 of all that one sensor's tiles follow from, beside the product.

    Other than `recipe_hash` it covers what the recipe only names: the sensor's table and lists of
    bands. If one of these changes, that sensor's scenes are stale and no others.
    """
    named = {(given or {}).get("name") for step in recipe.steps for given in step.values()}
    known = SENSORS[sensor]
    lists = {name: each.bands for name, each in known.lists.items() if name in named}
    content = [recipe_json(recipe, split), known.sha256, lists]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def apply(recipe: Recipe, scene: xr.Dataset, split: SplitConfig) -> xr.Dataset:
    """Run the recipe's steps on a scene, lazily, and return its tiles (see `pipeline.tiling.tile`).

    `tile` computes which pixels are valid; all else is left to who computes the tiles.

    Raises:
        SchemaError: The scene does not fit a step.
    """
    return cut(recipe, prepare(recipe, scene), split)


def prepare(recipe: Recipe, scene: xr.Dataset) -> xr.Dataset:
    """Return the scene after all steps but the last, `tile`; lazy.

    Raises:
        SchemaError: The scene does not fit a step.
    """
    for step in recipe.steps[:-1]:
        for name, given in step.items():
            scene = STEPS[name](scene, **(given or {}))
    return scene


def cut(recipe: Recipe, prepared: xr.Dataset, split: SplitConfig) -> xr.Dataset:
    """Return the tiles of what `prepare` returned, lazily."""
    tiles = tile(prepared, partial(assign, split), **tile_parameters(recipe))
    recorded = [*tiles.attrs["steps"]]
    recorded[-1] = {**recorded[-1], "split": record(split)}
    return tiles.assign_attrs(steps=recorded)


def tile_parameters(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters of the recipe's last step, `tile`."""
    return dict(recipe.steps[-1]["tile"] or {})


def _parameters(name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a step's parameters, checked against its signature and with its defaults."""
    if name not in _FUNCTIONS:
        raise ConfigError(f"{where}: unknown step {name!r}; there are {sorted(_FUNCTIONS)}")
    hints = get_type_hints(_FUNCTIONS[name])
    known = {k: p for k, p in inspect.signature(_FUNCTIONS[name]).parameters.items()
             if k not in _NOT_PARAMETERS}  # fmt: skip
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"{where}: {name} has parameters {sorted(known)}, got {unknown}")
    checked = {}
    for key, parameter in known.items():
        if key not in given and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{where}: {name} needs {key}")
        value = given.get(key, parameter.default)
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ConfigError(f"{where}: {name}.{key}: {message}, got {value!r}") from error
    return checked
