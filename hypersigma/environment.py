"""What a run was begun with beside its config: `environment.json`, written once."""

import importlib.metadata
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hypersigma.runlog import flatten

logger = logging.getLogger(__name__)

ENVIRONMENT_FILE = "environment.json"
PACKAGES = (
    "hypersigma-pipeline", "torch", "torchvision", "timm", "numpy", "safetensors", "deepspeed",
    "pyarrow", "zarr", "icechunk", "obstore",
)  # fmt: skip
"""Those that what is computed or read may depend on."""
COMPARED = ("python", "platform", "packages", "gpu", "code")
"""What a run that goes on elsewhere is told the differences of."""
CHECKOUT = Path(__file__).parents[1]


def record(run: Path, identity: Mapping[str, Any]) -> None:
    """Write `environment.json` into a new run's folder; of a run that goes on, warn of differences.

    Args:
        run: Folder that is there.
        identity: What `run_identity` returns: its data version and spectral contract go in too.
    """
    path, here = run / ENVIRONMENT_FILE, environment()
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        if found := differences(there, here):
            logger.warning("%s was begun in another environment: %s", run, "; ".join(found))
        return
    whole = here | {key: identity[key] for key in ("data", "spectral")}
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Return what this process runs on: versions, GPUs, and the state of the code."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
        "gpu": gpu(),
        "code": code(CHECKOUT),
    }


def version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpu() -> dict[str, Any]:
    """Return the first GPU's name, and the versions of CUDA, cuDNN and NCCL that torch uses.

    All None where torch sees no GPU.
    """
    if not torch.cuda.is_available():
        return dict.fromkeys(("name", "cuda", "cudnn", "nccl"))
    return {
        "name": torch.cuda.get_device_name(0),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def code(root: Path) -> dict[str, Any]:
    """Return the commit of the checkout `root`, and whether its files differ from it.

    Both None where `root` is the top of no checkout, or git is not installed.
    """
    unknown = {"commit": None, "changed": None}
    # An installed package may lie inside somebody's checkout of something else.
    if not (root / ".git").exists():
        return unknown
    commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    if commit is None or status is None:
        return unknown
    return {"commit": commit, "changed": bool(status)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what of two environments is not the same, in words."""
    old, new = (flatten({key: one.get(key) for key in COMPARED}) for one in (there, here))
    return [
        f"{name} was {old.get(name)} and is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
