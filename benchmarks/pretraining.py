"""Does pretraining help? A few labels of measured pixels, with and without it, and controls.

Pretrain both encoders, size `tiny`, on crops of two scenes (EnMAP pixels in Hyperion's bands, and
AVIRIS over Jasper Ridge). Then, of a third (AVIRIS, Salinas-A), a few labels a class, and all
labelled pixels of other blocks of ground to measure on: blocks of 21 pixels like a chessboard,
training pixels so far inside that no window reaches a test pixel. Fine-tuned from pretrained and
from random weights, beside a support vector machine and a 1-D CNN that see the pixel's spectrum.
All see spectra standardised by the scene's own mean and deviation; no test pixel chooses anything.

    python -m benchmarks.pretraining DATA OUT.json [STEPS]
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import ablation
from benchmarks.ablation import Cube
from hypersigma.backbones.loading import load_encoder
from hypersigma.classical.classifiers import Classify, fit_cnn, fit_svm
from hypersigma.mae import spatial_mae, spectral_mae
from hypersigma.metrics import classification_report, confusion_matrix
from hypersigma.pretrain import init_blocks
from hypersigma.tasks.classification import build_classifier

SEEDS = range(10)
LABELS = (5, 10)
STEPS = 1500
BLOCK, GUARD = 21, ablation.WINDOW // 2

type Weights = dict[str, dict[str, Tensor]]
type Places = np.ndarray
"""Row and column of pixels (N, 2)."""


def main(data: str, out: str, steps: str = str(STEPS)) -> int:
    """Run what OUT does not have yet; print the table."""
    torch.set_num_threads(1)
    path = Path(out)
    found: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    cube, label = ablation.salinas_a(Path(data))
    weights = pretrained(Path(data), int(steps), path.with_suffix(""))
    methods: dict[str, Callable[[Places, np.ndarray, int], Callable[[Places], np.ndarray]]] = {
        "SVM (RBF), spectrum": lambda at, target, seed: by_spectrum(
            fit_svm, cube, at, target, seed
        ),
        "1-D CNN, spectrum": lambda at, target, seed: by_spectrum(fit_cnn, cube, at, target, seed),
        "HyperSIGMA tiny, random start": lambda at, target, seed: tuned(
            cube, at, target, seed, None
        ),
        "HyperSIGMA tiny, pretrained": lambda at, target, seed: tuned(
            cube, at, target, seed, weights
        ),
    }
    for count in LABELS:
        for seed in SEEDS:
            train, test = split(label, np.random.default_rng([seed, count]), count)
            for name, fit in methods.items():
                key = f"{name}/{count}/{seed}"
                if key in found:
                    continue
                began = time.perf_counter()
                classify = fit(train, label[tuple(train.T)], seed)
                confusion = confusion_matrix(
                    classify(test), label[tuple(test.T)], int(label.max()) + 1
                )
                report = classification_report(confusion)
                found[key] = {name: report[name] for name in ("oa", "aa", "kappa")}
                print(key, found[key], f"{time.perf_counter() - began:.0f} s", flush=True)
                path.write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


def table(found: dict[str, dict[str, float]]) -> str:
    """Return mean and standard deviation over seeds as Markdown, and the gain seed by seed."""
    names = list(dict.fromkeys(key.split("/")[0] for key in found))
    lines = ["| labels a class | method | OA | AA | kappa |", "|---|---|---|---|---|"]
    for count in LABELS:
        for name in names:
            rows = [found[key] for s in SEEDS if (key := f"{name}/{count}/{s}") in found]
            cells = [
                f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" if len(v) > 1 else ""
                for v in ([row[n] for row in rows] for n in ("oa", "aa", "kappa"))
            ]
            lines.append(f"| {count} | {name} | " + " | ".join(cells) + " |")
    for count in LABELS:
        gains = [
            found[f"{names[3]}/{count}/{s}"]["oa"] - found[f"{names[2]}/{count}/{s}"]["oa"]
            for s in SEEDS if f"{names[3]}/{count}/{s}" in found
        ]  # fmt: skip
        lines.append(
            f"\n{count} labels: pretrained less random start, seed by seed: {np.mean(gains):+.3f} "
            f"± {np.std(gains, ddof=1):.3f} OA, better in {sum(g > 0 for g in gains)} of "
            f"{len(gains)}"
        )
    return "\n".join(lines)


def split(label: np.ndarray, rng: np.random.Generator, count: int) -> tuple[Places, Places]:
    """Return the places of training pixels, `count` a class, and of all test pixels."""
    row, column = np.indices(label.shape)
    black = (row // BLOCK + column // BLOCK) % 2 == 0
    inside = [(a % BLOCK >= GUARD) & (a % BLOCK < BLOCK - GUARD) for a in (row, column)]
    train = ablation.pick(label, black & inside[0] & inside[1], rng, count)
    return train, np.argwhere(~black & (label >= 0))


def pretrained(data: Path, steps: int, kept: Path) -> Weights:
    """Return the weights of both encoders, from `kept` if they are there."""
    cubes = [ablation.hyperion(data), ablation.jasper(data)]
    found = {}
    for kind, model in {
        "spatial": spatial_mae("tiny", bands=ablation.BANDS),
        "spectral": spectral_mae("tiny", bands=ablation.BANDS, anchor=True),
    }.items():
        file = kept.with_name(f"{kept.name}_{kind}_{steps}.safetensors")
        if file.exists():
            found[kind] = load_file(file)
            continue
        began = time.perf_counter()
        torch.manual_seed(0)
        init_blocks(model)
        ablation.pretrain_on(model, cubes, seed=0, one_window=False, steps=steps)
        found[kind] = model.state_dict()
        save_file({name: value.contiguous() for name, value in found[kind].items()}, file)
        print(f"{kind}: {steps} steps in {time.perf_counter() - began:.0f} s", flush=True)
    return found


def tuned(
    cube: Cube, at: Places, target: np.ndarray, seed: int, weights: Weights | None
) -> Callable[[Places], np.ndarray]:
    """Fine-tune a classifier of both encoders; return what classifies places."""
    torch.manual_seed(seed)
    model = build_classifier(
        "both", "tiny", in_chans=len(cube.x), num_classes=int(target.max()) + 1,
        window=ablation.WINDOW, patch_size=ablation.PATCH, ssa=False,
    )  # fmt: skip
    if weights is not None:
        assert model.spatial is not None
        assert model.spectral is not None
        load_encoder(model.spatial, weights["spatial"])
        load_encoder(model.spectral, weights["spectral"])
    ablation.tune(model, cube, at, target, seed)
    return lambda places: ablation.classes_of(model, cube, places)


def by_spectrum(
    fit: Callable[[np.ndarray, np.ndarray, int], Classify],
    cube: Cube,
    at: Places,
    target: np.ndarray,
    seed: int,
) -> Callable[[Places], np.ndarray]:
    """Fit a classifier of spectra; return what classifies places."""
    classify = fit(_spectra(cube, at), target, seed)
    return lambda places: classify(_spectra(cube, places))


def _spectra(cube: Cube, places: Places) -> np.ndarray:
    """Return the spectra (N, C) at places."""
    return cube.x.numpy()[:, places[:, 0], places[:, 1]].T.copy()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
