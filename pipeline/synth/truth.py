"""What is true of each scene, written beside the products."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.synth.archive import staged
from pipeline.synth.arrays import Floats, Ints
from pipeline.synth.geometry import Grid
from pipeline.synth.light import Air, Bands, Signal, make_air, read_bands, signal
from pipeline.synth.plan import Plan, scene_rng
from pipeline.synth.world import BRIGHTNESS, CLASSES, ENDMEMBERS, World, abundances


@dataclass(frozen=True)
class Truth:
    """All that made a scene."""

    plan: Plan
    grid: Grid
    air: Air
    bands: Bands
    sight: Signal
    abundance: Floats
    """(endmember, y, x) [1]."""
    dead: tuple[tuple[int, int], ...] = ()
    """Band number and column (0-based) of each dead detector."""


def make_truth(plan: Plan, world: World, grid: Grid, sensor: str) -> Truth:
    """Light the landscape under `grid` and say what the bands of `sensor` see of it."""
    rng = scene_rng(plan.seed, plan.number, "air")
    water, haze = rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.5)
    air = make_air(plan.acquired, plan.sun_elevation, water=water, haze=haze)
    bands = read_bands(sensor)
    sight = signal(air, bands.wavelength, bands.fwhm)
    return Truth(plan, grid, air, bands, sight, abundances(world, grid.lon, grid.lat))


def ground_and_path(truth: Truth) -> Floats:
    """Return the weights (endmember + 1, y, x) of `truth.sight.radiance`: path counts once."""
    path = np.ones((1, *truth.grid.valid.shape), np.float32)
    return np.concatenate([truth.abundance, path])


def labels(truth: Truth) -> Ints:
    """Return the class 1..6 of each pixel (y, x), uint8, 0 where the product has no data."""
    per_class = truth.abundance.reshape(len(CLASSES), 2, *truth.grid.valid.shape).sum(axis=1)
    # Brightness is taken out: a class is the larger share of the ground, not of the light.
    per_class = per_class / np.array(BRIGHTNESS)[:, None, None]
    return np.where(truth.grid.valid, per_class.argmax(axis=0) + 1, 0).astype(np.uint8)


def write_truth(folder: Path, truth: Truth) -> int:
    """Write `labels/<scene_id>.npy`, `labels/classes.json` and `<scene_id>.npz`.

    Returns:
        The number of labelled pixels.
    """
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    with staged(folder / "labels" / "classes.json") as part:
        part.write_text(json.dumps(list(CLASSES), indent=1) + "\n")
    classes = labels(truth)
    with staged(folder / "labels" / f"{truth.plan.scene_id}.npy") as part, part.open("wb") as file:
        np.save(file, classes)
    with staged(folder / f"{truth.plan.scene_id}.npz") as part, part.open("wb") as file:
        np.savez_compressed(file, **_arrays(truth))
    return int(np.count_nonzero(classes))


def merge_scenes(path: Path, new: list[dict[str, Any]], seed: int) -> None:
    """Add `new` scenes to the list in `scenes.json`, replacing those of the same number.

    Raises:
        ValueError: The list there belongs to another landscape.
    """
    old = read_scenes(path, seed)
    numbers = {scene["number"] for scene in new}
    scenes = [scene for scene in old if scene["number"] not in numbers] + new
    scenes.sort(key=lambda scene: int(scene["number"]))
    with staged(path) as part:
        part.write_text(json.dumps({"seed": seed, "scenes": scenes}, indent=1) + "\n")


def read_scenes(path: Path, seed: int) -> list[dict[str, Any]]:
    """Return the scenes listed in `scenes.json`; none if there is no such file.

    Raises:
        ValueError: The list there belongs to another landscape.
    """
    if not path.exists():
        return []
    stored = json.loads(path.read_text())
    if stored["seed"] != seed:
        raise ValueError(
            f"{path}: expected scenes of seed {seed}, got seed {stored['seed']}; "
            "write to an empty folder, since all scenes of a folder show one landscape"
        )
    return list(stored["scenes"])


def _arrays(truth: Truth) -> dict[str, Any]:
    bands, sight, grid = truth.bands, truth.sight, truth.grid
    return {
        "band": bands.number.astype(np.int16),
        "wavelength": bands.wavelength,
        "fwhm": bands.fwhm,
        "gain": bands.gain,
        "offset": bands.offset,
        "live": bands.live,
        "endmember": np.array([name for pair in ENDMEMBERS for name in pair]),
        "endmember_class": np.repeat(np.arange(1, len(CLASSES) + 1, dtype=np.uint8), 2),
        "reflectance": sight.reflectance.astype(np.float32),
        "abundance": truth.abundance.astype(np.float16),
        "irradiance": sight.irradiance,
        "transmittance": sight.transmittance,
        "path": sight.path,
        "cosine": np.float64(truth.air.cosine),
        "dead": np.array(truth.dead, np.int16).reshape(-1, 2),
        "lon": grid.lon.astype(np.float32),
        "lat": grid.lat.astype(np.float32),
        "valid": grid.valid,
    }
