"""All scenes, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.synth.ahsi import write_ahsi
from pipeline.synth.hyperion import write_map_product
from pipeline.synth.hyperion_l1r import write_l1r
from pipeline.synth.plan import Plan, plan_scene
from pipeline.synth.truth import Truth, merge_scenes, read_scenes, write_truth
from pipeline.synth.world import World, make_world

WRITERS: dict[str, Callable[[Path, Plan, World], tuple[Path, Truth]]] = {
    "hyperion-l1t": write_map_product,
    "gf5b": write_ahsi,
    "hyperion-l1r": write_l1r,
    "hyperion-l1gst": write_map_product,
    "gf5": write_ahsi,
}


def write_products(
    out: Path,
    *,
    scenes: int = 5,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Write raw products into `out` and what is true of them into `out/truth`.

    Args:
        out: Folder, made if missing. Products already there stay, those of the same numbers are
            written anew with the same bytes.
        scenes: How many.
        seed: Of the landscape; all scenes of a folder show the same one.
        first: Number of the first scene. The families take turns: Hyperion L1T, GF-5B AHSI,
            Hyperion L1R, Hyperion L1GST, GF-5 AHSI.
        progress: Called with one line after each scene.

    Returns:
        One dict a scene, as added to `truth/scenes.json`; `path` is relative to `out`.

    Raises:
        ValueError: A count or seed that cannot be, or `out` holds scenes of another seed.
    """
    if scenes < 1 or seed < 0 or first < 0:
        raise ValueError(
            "expected scenes >= 1, seed >= 0 and first >= 0, "
            f"got scenes {scenes}, seed {seed}, first {first}"
        )
    listing = out / "truth" / "scenes.json"
    read_scenes(listing, seed)  # refuses another landscape before anything is written
    (out / "truth").mkdir(parents=True, exist_ok=True)
    world = make_world(seed)
    written = []
    for number in range(first, first + scenes):
        plan = plan_scene(number, seed)
        path, truth = WRITERS[plan.family](out, plan, world)
        labelled = write_truth(out / "truth", truth)
        written.append(_describe(truth, path.relative_to(out), labelled))
        merge_scenes(listing, written[-1:], seed)
        if progress:
            progress(f"{len(written)}/{scenes} {path.name}")
    return written


def _describe(truth: Truth, path: Path, labelled: int) -> dict[str, Any]:
    plan, (height, width) = truth.plan, truth.grid.valid.shape
    return {
        "number": plan.number,
        "scene_id": plan.scene_id,
        "product": plan.product,
        "family": plan.family,
        "platform": plan.platform,
        "path": path.as_posix(),
        "acquired": f"{plan.acquired:%Y-%m-%dT%H:%M:%SZ}",
        "lon": round(plan.lon, 6),
        "lat": round(plan.lat, 6),
        "sun_elevation": plan.sun_elevation,
        "sun_azimuth": plan.sun_azimuth,
        "bands": len(truth.bands.number),
        "lines": height,
        "samples": width,
        "labelled": labelled,
        "water": round(truth.air.water, 4),
        "haze": round(truth.air.haze, 4),
    }
