"""What each repair of the published pretraining is worth, on measured pixels.

Pretrain size `tiny` on crops of two scenes, with one thing changed at a time; then, on ground that
was held out, the error of hidden pixels beside that of the mean spectrum and of the nearest visible
band; then fine-tune on ten labels a class of a third scene, whose other half tells the accuracy.

    python -m benchmarks.ablation DATA OUT.json [variant ...]    DATA has jasper/, raw/, salinasA/
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from torch import Tensor

from hypersigma.backbones.loading import load_encoder
from hypersigma.data import Inputs
from hypersigma.heldout import predictions
from hypersigma.mae import Mae, spatial_mae, spectral_mae
from hypersigma.optim import OptimConfig, adamw, learning_rate, set_learning_rate
from hypersigma.pixels import windows
from hypersigma.pretrain import init_blocks, mae_losses
from hypersigma.reconstruction import BandErrors
from hypersigma.tasks.classification import PatchClassifier, build_classifier
from hypersigma.train import generator

SEEDS = range(5)
STEPS, BATCH, BANDS, SIDE = 400, 8, 100, 64
PRETRAINING = OptimConfig(blr=0.064, warmup_steps=30)  # 2e-3 at the peak
FINETUNING = OptimConfig(blr=0.016, warmup_steps=10)
TUNE_STEPS, TUNE_BATCH, WINDOW, PATCH, LABELS = 100, 30, 9, 3, 10

# Rows of the published band numbers that other sets leave out; AVIRIS, 224 bands.
JASPER_LEFT_OUT = [*range(1, 4), *range(108, 113), *range(154, 167), *range(220, 225)]
SALINAS_LEFT_OUT = [*range(108, 113), *range(154, 168), 224]

DEFAULT: dict[str, Any] = {}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "spatial compat": ("spatial", {"compat": True}),
    "spatial default": ("spatial", DEFAULT),
    "spatial default, one window": ("spatial", {"one_window": True}),
    "spatial default, norm_pix": ("spatial", {"norm_pix": True}),
    "spatial default, blocks of 2": ("spatial", {"block": 2}),
    "spectral compat": ("spectral", {"compat": True}),
    "spectral no anchor": ("spectral", DEFAULT),
    "spectral anchor": ("spectral", {"anchor": True}),
    "spectral anchor, one window": ("spectral", {"anchor": True, "one_window": True}),
    "spectral anchor, norm_pix": ("spectral", {"anchor": True, "norm_pix": True}),
    "spectral anchor, runs of 10": ("spectral", {"anchor": True, "block": 10}),
}
MAKE: dict[str, Callable[..., Mae]] = {"spatial": spatial_mae, "spectral": spectral_mae}


@dataclass(frozen=True)
class Cube:
    """A scene, standardised by its training columns, and its wavelengths."""

    x: Tensor
    """(band, y, x)"""
    wavelength: Tensor
    """(band) [nm]"""
    train: slice
    """Columns to train on."""
    held_out: slice | None
    """Columns, apart from them, to measure on."""


def main(data: str, out: str, *names: str) -> int:
    """Run the variants that OUT does not have yet; print the table."""
    torch.set_num_threads(1)
    path = Path(out)
    found: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    cubes = [hyperion(Path(data)), jasper(Path(data))]
    salinas = salinas_a(Path(data))
    for seed in SEEDS:
        for name in ["from scratch spatial", "from scratch spectral", *VARIANTS]:
            key = f"{name}/{seed}"
            if key in found or (names and name not in names):
                continue
            began = time.perf_counter()
            found[key] = _run(name, seed, cubes, salinas)
            print(key, found[key], f"{time.perf_counter() - began:.0f} s", flush=True)
            path.write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


def table(found: dict[str, dict[str, float]]) -> str:
    """Return mean and standard deviation over seeds of each number as Markdown."""
    columns = ["model", "mean_spectrum", "nearest_visible", "interpolated", "accuracy"]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * 6 + "|"]
    for name in dict.fromkeys(key.rpartition("/")[0] for key in found):
        rows = [one for key, one in found.items() if key.rpartition("/")[0] == name]
        cells = [
            f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" if len(v) > 1 else ""
            for v in ([row[c] for row in rows if c in row] for c in columns)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _run(name: str, seed: int, cubes: list[Cube], salinas: tuple[Cube, np.ndarray]) -> Any:
    if name.startswith("from scratch"):
        return {"accuracy": few_shot(name.rpartition(" ")[2], None, salinas, seed)}
    kind, options = VARIANTS[name]
    options = dict(options)
    one_window = options.pop("one_window", False) or options.get("compat", False)
    torch.manual_seed(seed)
    model = MAKE[kind]("tiny", bands=BANDS, mask_ratio=0.75, **options)
    init_blocks(model)
    pretrain_on(model, cubes, seed, one_window=one_window)
    errors = _errors(model, cubes)
    accuracy = few_shot(kind, model.state_dict(), salinas, seed, compat=model.compat)
    return {**errors, "accuracy": accuracy}


def pretrain_on(
    model: Mae, cubes: list[Cube], seed: int, *, one_window: bool, steps: int = STEPS
) -> None:
    """Pretrain on crops of the cubes' training columns."""
    optimizer = adamw(model, PRETRAINING)
    model.train()
    for step in range(steps):
        rate = learning_rate(step, steps=steps, samples_per_step=BATCH, config=PRETRAINING)
        set_learning_rate(optimizer, rate)
        batch = _batch(cubes, np.random.default_rng([seed, step]), one_window=one_window)
        mae_losses(model, model, batch, generator(seed, step))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _batch(cubes: list[Cube], rng: np.random.Generator, *, one_window: bool) -> Inputs:
    tiles, centres = [], []
    for _ in range(BATCH):
        cube = cubes[rng.integers(len(cubes))]
        x = cube.x[:, :, cube.train]
        row, column = (int(rng.integers(side - SIDE + 1)) for side in x.shape[1:])
        first = 0 if one_window else int(rng.integers(len(x) - BANDS + 1))
        tile = x[first : first + BANDS, row : row + SIDE, column : column + SIDE]
        tile = torch.rot90(tile, int(rng.integers(4)), (1, 2))
        tiles.append(tile.flip(2) if rng.integers(2) else tile)
        centres.append(cube.wavelength[first : first + BANDS])
    return _inputs(torch.stack(tiles), torch.stack(centres))


def _inputs(x: Tensor, wavelength: Tensor) -> Inputs:
    valid = (x != 0).any(1)
    return Inputs(x, valid, wavelength, torch.zeros(x.shape[:2]))


def _errors(model: Mae, cubes: list[Cube]) -> dict[str, float]:
    """Return the errors on held-out columns, all windows of bands 25 apart."""
    model.eval()
    rng = generator(0)
    for cube in cubes:
        if cube.held_out is None:
            continue
        x = cube.x[:, :, cube.held_out]
        errors = BandErrors.empty(len(x))
        for first in range(0, len(x) - BANDS + 1, 25):
            for row in range(0, x.shape[1] - SIDE + 1, SIDE):
                tile = x[None, first : first + BANDS, row : row + SIDE, :SIDE]
                inputs = _inputs(tile, cube.wavelength[None, first : first + BANDS])
                with torch.inference_mode():
                    found, counted = predictions(model, inputs, rng)
                errors.add({k: v[0] for k, v in found.items()}, tile[0], counted[0], first)
    return {name: errors.total(name) for name in errors.squares}


def few_shot(
    kind: str,
    state: dict[str, Tensor] | None,
    scene: tuple[Cube, np.ndarray],
    seed: int,
    *,
    compat: bool = False,
) -> float:
    """Return the accuracy on the right half after fine-tuning on ten labels a class of the left."""
    cube, label = scene
    rng = np.random.default_rng([seed, 7])
    half, known = label.shape[1] // 2, label >= 0
    columns = np.arange(label.shape[1])[None, :]
    train = pick(label, known & (columns < half - WINDOW), rng, LABELS)
    test = pick(label, known & (columns >= half), rng, 300)
    torch.manual_seed(seed)
    model = build_classifier(
        kind, "tiny", in_chans=len(cube.x), num_classes=int(label.max()) + 1, window=WINDOW,
        patch_size=PATCH, ssa=False,
    )  # fmt: skip
    encoder = model.spatial if kind == "spatial" else model.spectral
    assert encoder is not None
    if state is not None:
        load_encoder(encoder, state)
    tune(model, cube, train, label[tuple(train.T)], seed)
    return float((classes_of(model, cube, test) == label[tuple(test.T)]).mean())


def tune(
    model: PatchClassifier, cube: Cube, places: np.ndarray, target: np.ndarray, seed: int
) -> None:
    """Fine-tune a classifier on the classes of some places."""
    optimizer = adamw(model, FINETUNING)
    for step in range(TUNE_STEPS):
        set_learning_rate(
            optimizer,
            learning_rate(step, steps=TUNE_STEPS, samples_per_step=TUNE_BATCH, config=FINETUNING),
        )
        at = np.random.default_rng([seed, step]).integers(len(places), size=TUNE_BATCH)
        logits = logits_of(model, cube, places[at])
        model.loss(logits, torch.from_numpy(target[at]).long()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def classes_of(model: PatchClassifier, cube: Cube, places: np.ndarray) -> np.ndarray:
    """Return the classes of places."""
    model.eval()
    with torch.inference_mode():
        found = [logits_of(model, cube, part).argmax(1).numpy() for part in _parts(places)]
    return np.concatenate(found)


def logits_of(model: torch.nn.Module, cube: Cube, places: np.ndarray) -> Tensor:
    """Return the logits of the windows around places."""
    x = windows(cube.x, places[:, 0], places[:, 1], WINDOW)
    logits: Tensor = model(x, cube.wavelength.expand(len(x), -1))
    return logits


def _parts(places: np.ndarray) -> Iterator[np.ndarray]:
    return (places[n : n + 100] for n in range(0, len(places), 100))


def pick(label: np.ndarray, where: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return places (N, 2) of at most `count` pixels of each class."""
    chosen = []
    for number in range(int(label.max()) + 1):
        places = np.argwhere((label == number) & where)
        chosen.append(places[rng.permutation(len(places))[:count]])
    return np.concatenate(chosen)


def _standardised(
    stored: np.ndarray, wavelength: np.ndarray, train: slice, held_out: slice | None
) -> Cube:
    """Return a cube by its training columns' mean and deviation; 0 where nothing was measured."""
    measured = np.isfinite(stored) & (stored != 0).any(0)
    known = np.where(measured, stored, np.nan)[:, :, train]
    mean, std = np.nanmean(known, (1, 2)), np.nanstd(known, (1, 2))
    x = np.where(measured, (stored - mean[:, None, None]) / std[:, None, None], 0)
    return Cube(
        torch.from_numpy(x.astype("f4")), torch.from_numpy(wavelength.astype("f4")), train, held_out
    )


def hyperion(data: Path) -> Cube:
    """Return Hyperion L1T product in the bands of `hyperglobal`, its last columns held out."""
    from pipeline.readers import open_scene
    from pipeline.steps import STEPS

    scene = open_scene(str(data / "raw" / "EO1H1930242013205110KF_1T.ZIP"))
    kept = STEPS["bands"](scene, name="hyperglobal")
    stored = kept["dn"].to_numpy().astype("f4")
    wide = stored.shape[2]
    train, held_out = slice(0, wide - SIDE - 16), slice(wide - SIDE, wide)
    return _standardised(stored, kept["wavelength"].to_numpy(), train, held_out)


def _aviris(data: Path) -> np.ndarray:
    found = scipy.io.loadmat(data / "salton" / "salton_sea_roi.mat")["wl"].ravel()
    return np.asarray(found) * 1000


def _kept(wavelength: np.ndarray, left_out: list[int]) -> np.ndarray:
    return np.delete(wavelength, np.array(left_out) - 1)


def jasper(data: Path) -> Cube:
    """Return Jasper Ridge, whole."""
    stored = scipy.io.loadmat(data / "jasper" / "jasperRidge2_R198.mat")["Y"]
    cube = stored.reshape(198, 100, 100).transpose(0, 2, 1).astype("f4")
    return _standardised(cube, _kept(_aviris(data), JASPER_LEFT_OUT), slice(0, 100), None)


def salinas_a(data: Path) -> tuple[Cube, np.ndarray]:
    """Return Salinas-A and its classes (y, x), -1 where there is none."""
    folder = data / "salinasA"
    stored = scipy.io.loadmat(folder / "SalinasA_corrected.mat")["salinasA_corrected"]
    label = scipy.io.loadmat(folder / "SalinasA_gt.mat")["salinasA_gt"].astype(int)
    names = [number for number in np.unique(label) if number]
    label = np.select([label == number for number in names], range(len(names)), -1)
    cube = stored.transpose(2, 0, 1).astype("f4")
    wavelength = _kept(_aviris(data), SALINAS_LEFT_OUT)
    return _standardised(cube, wavelength, slice(0, cube.shape[2]), None), label


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
