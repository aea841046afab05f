"""The whole road on synthetic scenes: `make demo`.

Every step is a command that a user would type, shown before it runs.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path("demo")
MARK = ROOT / ".made-by-make-demo"

STEPS = """
1. Raw scenes, synthetic, with known truth
hypersigma-data synth demo/raw --scenes 8 --seed 7
2. Version 1, through the Prefect flow
hypersigma-data build dataset/demo --prefect
3. A new scene arrives: version 2 adds it, and it alone
hypersigma-data synth demo/raw --scenes 1 --seed 7 --first 8
hypersigma-data build dataset/demo
hypersigma-data versions demo/store
hypersigma-data diff v1 v2 demo/store
4. Shards of version 2
hypersigma-data shards demo/store demo/shards --version v2
5. Both masked autoencoders
hypersigma-train pretrain pretrain/demo_spatial
hypersigma-train pretrain pretrain/demo_spectral
6. Classifiers: spatial, spectral, both; and both from scratch, to compare
hypersigma-train finetune finetune/demo_spatial
hypersigma-train finetune finetune/demo_spectral
hypersigma-train finetune finetune/demo_both
hypersigma-train finetune finetune/demo_both run=demo/runs/finetune_scratch pretrained={}
7. Accuracy on held-out blocks of ground
hypersigma-train evaluate evaluate/demo checkpoint=demo/runs/finetune_spatial
hypersigma-train evaluate evaluate/demo checkpoint=demo/runs/finetune_spectral
hypersigma-train evaluate evaluate/demo checkpoint=demo/runs/finetune_both
hypersigma-train evaluate evaluate/demo checkpoint=demo/runs/finetune_scratch
8. A map of a whole scene: all its pixels in tiles, then their classes
hypersigma-data build dataset/demo_map
hypersigma-train predict predict/demo
"""


def main() -> int:
    """Run every step, write the report and say where things are."""
    if ROOT.exists() and not MARK.is_file():
        sys.stderr.write(f"{ROOT}/ holds something else than an earlier demo; move it away first\n")
        return 1
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    MARK.touch()
    os.environ["PREFECT_HOME"] = str((ROOT / "prefect").resolve())
    started = time.monotonic()
    timings: list[dict[str, object]] = []
    for line in STEPS.strip().splitlines():
        if line[0].isdigit():
            sys.stdout.write(f"\n\033[1m{line}\033[0m\n" if sys.stdout.isatty() else f"\n{line}\n")
        else:
            timings.append(run(line))
            if timings[-1]["exit"]:
                sys.stderr.write(f"\nthe demo stopped: `{line}` failed, see above\n")
                return 1
    (ROOT / "timings.json").write_text(json.dumps(timings, indent=1), encoding="utf-8")

    from scripts.demo_page import write_page  # matplotlib and torch-free; not needed before

    page = write_page(ROOT, timings)
    sys.stdout.write(f"\n{closing_words(page, time.monotonic() - started)}\n")
    return 0


def run(command: str) -> dict[str, object]:
    """Show and run one command of the environment that this file runs in."""
    sys.stdout.write(f"$ {command}\n")
    sys.stdout.flush()
    program, *arguments = shlex.split(command)
    started = time.monotonic()
    done = subprocess.run([str(Path(sys.executable).parent / program), *arguments])
    return {
        "command": command,
        "exit": done.returncode,
        "seconds": round(time.monotonic() - started, 1),
    }


def closing_words(page: Path, seconds: float) -> str:
    """Return the last lines of the demo: what came out and where it lies."""
    numbers = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
    best = numbers["classification"]["both"]
    return "\n".join(
        [
            f"Done in {seconds / 60:.1f} min. Accuracy on held-out ground: OA {best['oa']:.3f}, "
            f"AA {best['aa']:.3f}, kappa {best['kappa']:.3f}.",
            f"  report   {page}",
            f"  numbers  {page.parent / 'summary.json'}",
            "  dataset  demo/store (hypersigma-data versions demo/store)",
            "  shards   demo/shards/manifest.json",
            "  models   demo/runs/",
            "  map      demo/map/ (GeoTIFF, opens in a GIS)",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
