"""Unmixing, denoising and super-resolution of measured cubes, beside the classical methods.

Each cell trains one model by the code of `hypersigma-train finetune`. Denoising and
super-resolution are measured on ground that was not trained on, the classical methods on the same;
unmixing knows no truth while it trains and is measured on all pixels, as the classical methods are.
No number measured chooses anything: the checkpoint is chosen on ground of its own, or is the last.
A key is `task scene case/method/seed`.

    python -m benchmarks.tasks_real DATA OUT.json [part of a key ...]
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hypersigma.classical.unmixing import fcls, nfindr, vca
from hypersigma.cubefit import fit_task
from hypersigma.cubes.benchmarks import Benchmark, read_benchmark
from hypersigma.optim import OptimConfig
from hypersigma.tasks import denoising, super_resolution
from hypersigma.tasks.cubetasks import CUBE_TASKS
from hypersigma.tasks.noise import NOISES
from hypersigma.tasks.task import Maps, TaskConfig
from hypersigma.trainconfig import TrainConfig

SEEDS = range(5)
MODES = ("spatial", "spectral", "both")
SHOWN = {
    "unmixing": ("sad", "rmse"), "denoising": ("psnr", "ssim", "sam"),
    "super_resolution": ("psnr", "ssim", "sam", "ergas"),
}  # fmt: skip

type Found = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A task on a scene."""

    task: str
    data: str
    steps: int
    lr: float
    patch_size: int
    options: dict[str, Any]

    def config(self, mode: str, seed: int, data: Path, run: Path) -> TaskConfig:
        """Return what trains one model of it."""
        batch = 8
        optim = OptimConfig(blr=self.lr * 256 / batch, warmup_steps=self.steps // 15)
        train = TrainConfig(
            steps=self.steps, batch_size=batch, seed=seed, eval_every=max(1, self.steps // 5),
            checkpoint_every=self.steps, log_every=10_000, device="cpu", optim=optim,
        )  # fmt: skip
        return TaskConfig(
            run=run, task=self.task, data=self.data, root=data, mode=mode, size="tiny",
            patch_size=self.patch_size, train=train, options=self.options,
        )  # type: ignore[arg-type]  # fmt: skip


CASES: dict[str, Case] = {
    "unmixing jasper_ridge": Case("unmixing", "jasper_ridge", 200, 3e-3, 8, {}),
} | {
    f"denoising jasper_ridge {noise}": Case(
        "denoising", "jasper_ridge", 60, 4e-3, 8, {"noise": noise}
    )
    for noise in NOISES
} | {
    f"super_resolution jasper_ridge x{ratio}": Case(
        "super_resolution", "jasper_ridge", 80, 3e-3, patch,
        {"ratio": ratio, "window": window, "overlap": window // 2, "cut": True},
    )
    for ratio, window, patch in ((2, 16, 8), (4, 8, 4), (8, 4, 2))
}  # fmt: skip


def main(data: str, out: str, *parts: str) -> int:
    """Run what OUT does not have yet; print the table."""
    torch.set_num_threads(1)
    path = Path(out)
    found: Found = json.loads(path.read_text()) if path.exists() else {}
    for seed in SEEDS:
        for name, case in CASES.items():
            for method, run in methods(case, seed, Path(data)).items():
                key = f"{name}/{method}/{seed}"
                if key in found or (parts and not any(part in key for part in parts)):
                    continue
                began = time.perf_counter()
                numbers = run()
                found[key] = {one: numbers[one] for one in SHOWN[case.task]}
                print(key, found[key], f"{time.perf_counter() - began:.0f} s", flush=True)
                path.write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


def methods(case: Case, seed: int, data: Path) -> dict[str, Callable[[], dict[str, float]]]:
    """Return what measures each method of a case with one seed."""

    def classical(maps: Callable[[TaskConfig, Benchmark], Maps]) -> dict[str, float]:
        config, benchmark = case.config("both", seed, data, Path()), read_benchmark(case.data, data)
        return CUBE_TASKS[case.task].prepare(config, benchmark).metrics(maps(config, benchmark))

    def trained(mode: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as run:
            numbers: dict[str, float] = fit_task(case.config(mode, seed, data, Path(run)))[
                "metrics"
            ]
        return numbers

    beside: dict[str, Callable[[TaskConfig, Benchmark], Maps]] = {
        "unmixing": {
            "VCA + FCLS": lambda _, scene: unmixed(scene, vca, seed),
            "N-FINDR + FCLS": lambda _, scene: unmixed(scene, nfindr, seed),
        },
        "denoising": {"noisy": observed, "low rank": denoising.baseline},
        "super_resolution": {"bicubic": super_resolution.baseline},
    }[case.task]  # fmt: skip
    return {name: lambda maps=maps: classical(maps) for name, maps in beside.items()} | {
        f"HyperSIGMA tiny, {mode}": lambda mode=mode: trained(mode) for mode in MODES
    }


def observed(config: TaskConfig, benchmark: Benchmark) -> Maps:
    """Return the noisy image itself."""
    return {"denoised": denoising.observed(config, benchmark)}


def unmixed(benchmark: Benchmark, find: Callable[..., np.ndarray], seed: int) -> Maps:
    """Return endmembers and abundances by a classical method."""
    x_CHW = benchmark.cube.physical_CHW(np.float64)
    x_CN = x_CHW.reshape(len(x_CHW), -1)
    count = 0 if benchmark.endmembers_CE is None else benchmark.endmembers_CE.shape[1]
    ends_CK = x_CN[:, find(x_CN, count, rng=np.random.default_rng(seed))]
    shares_KN = fcls(x_CN, ends_CK)
    return {"abundances": shares_KN.reshape(count, *x_CHW.shape[1:]), "endmembers": ends_CK.T}


def table(found: Found) -> str:
    """Return mean and standard deviation over seeds of each number as Markdown."""
    lines = []
    for task, shown in SHOWN.items():
        keys = [key for key in found if key.split("/")[0].split(" ")[0] == task]
        if not keys:
            continue
        lines += ["", f"| {task}: scene | method | " + " | ".join(shown) + " | seeds |",
                  "|---" * (len(shown) + 3) + "|"]  # fmt: skip
        for row in sorted({key.rpartition("/")[0] for key in keys}, key=_place):
            seeds = [found[key] for key in keys if key.rpartition("/")[0] == row]
            cells = [f"{np.mean(v):.3f} ± {np.std(v):.3f}"
                     for v in ([one[name] for one in seeds] for name in shown)]  # fmt: skip
            name, _, method = row.partition("/")
            lines.append(
                f"| {name.partition(' ')[2]} | {method} | " + " | ".join(cells)
                + f" | {len(seeds)} |"
            )  # fmt: skip
    return "\n".join(lines)


def _place(row: str) -> tuple[int, bool, str]:
    """Return what sorts rows: cases in their order, classical methods first."""
    name, _, method = row.partition("/")
    return list(CASES).index(name), "HyperSIGMA" in method, method


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
