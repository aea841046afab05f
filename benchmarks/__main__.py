"""`make bench [NAME]`: ratios measured side by side in one run; without a name, all of them."""

import sys

from benchmarks import (
    builds,
    full_scene,
    index,
    loader,
    memory,
    models,
    remote,
    scene_map,
    trainer,
)

BENCHMARKS = {
    "builds": builds.main,
    "full_scene": full_scene.main,
    "index": index.main,
    "loader": loader.main,
    "memory": memory.main,
    "models": models.main,
    "remote": remote.main,
    "scene_map": scene_map.main,
    "trainer": trainer.main,
}


def main(names: list[str]) -> int:
    """Run the benchmarks named, and return 1 if one could not run."""
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        sys.stderr.write(f"there are the benchmarks {sorted(BENCHMARKS)}, got {unknown}\n")
        return 2
    return max(run() for name, run in BENCHMARKS.items() if not names or name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
