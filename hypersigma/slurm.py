"""The batch script that runs a pretraining under SLURM, and queues it again until it is finished.

The script starts one process a GPU; rank, world and address come from SLURM's own environment.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import configs
from configs import ConfigError
from hypersigma.pretrain import PretrainConfig
from hypersigma.runfolder import RESUMABLE_FILE, TrainError

NOTICE_SECONDS = 120
"""Between the signal and the end of a job's time: for the step at hand and a checkpoint."""
NAME = r"[A-Za-z0-9][A-Za-z0-9_.,@+-]*"
TIME = r"\d+(:[0-5]\d){0,2}|\d+-\d{1,2}(:[0-5]\d){0,2}"
"""What sbatch takes: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
PROCESS_CPUS = 2
"""Of a process: one for its training, one that reads ahead."""

SCRIPT = """\
#!/bin/bash
# {command}
# Effective batch {samples}: {batch_size} samples x {world} processes x {parts} a step.
{directives}
# To the processes that srun starts, not to this shell (that would be B:USR1): they save and end.
#SBATCH --signal=USR1@{notice}
set -euo pipefail

# Preempted or cancelled, this shell ends by SIGTERM: SLURM lets the processes save, and then queues
# the job again, or does not.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \\
    hypersigma-train pretrain {arguments}

# The mark of a run that was told to stop, saved, and can go on. A finished one has none.
if [ -e {mark} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
"""


@dataclass(frozen=True)
class Allocation:
    """What a job asks of the cluster."""

    nodes: int
    gpus_per_node: int
    """Also how many processes a node has."""
    time: str
    """Of one turn in the queue, as sbatch takes it."""
    partition: str | None = None
    account: str | None = None

    @property
    def world(self) -> int:
        """How many processes there are."""
        return self.nodes * self.gpus_per_node

    def options(self) -> dict[str, str]:
        """Return what the user said, by the names of the command's options."""
        said = {
            "nodes": self.nodes, "gpus-per-node": self.gpus_per_node, "time": self.time,
            "partition": self.partition, "account": self.account,
        }  # fmt: skip
        return {name: str(value) for name, value in said.items() if value is not None}


def batch_script(config: str, overrides: Sequence[str], allocation: Allocation) -> str:
    """Return an sbatch script that pretrains what `config` with `overrides` describes.

    The samples of a step stay as the config says: the processes share out what one would add up.

    Raises:
        ConfigError: The config is wrong, its batch cannot be shared out, or a value is none that
            sbatch takes.
    """
    _check(config, overrides, allocation)
    loaded = configs.load(PretrainConfig, config, overrides)
    try:
        parts = loaded.train.parts(allocation.world)
    except TrainError as error:
        raise ConfigError(str(error)) from error
    options = [f"--{name}={value}" for name, value in allocation.options().items()]
    return SCRIPT.format(
        command=shlex.join(["hypersigma-train", "slurm", config, *overrides, *options]),
        samples=loaded.train.batch_size * loaded.train.accumulate,
        batch_size=loaded.train.batch_size,
        world=allocation.world,
        parts=parts,
        directives="\n".join(f"#SBATCH {line}" for line in directives(loaded, allocation)),
        notice=NOTICE_SECONDS,
        mark=shlex.quote(str(loaded.run / RESUMABLE_FILE)),
        arguments=shlex.join([config, *overrides]),
    )


def directives(config: PretrainConfig, allocation: Allocation) -> list[str]:
    """Return the options of sbatch, one a line."""
    found = {
        "job-name": re.sub(r"[^A-Za-z0-9_.-]", "_", config.run.name) or "pretrain",
        "nodes": allocation.nodes,
        "ntasks-per-node": allocation.gpus_per_node,
        "gpus-per-node": allocation.gpus_per_node,
        "cpus-per-task": PROCESS_CPUS + config.workers,
        "time": allocation.time,
        "partition": allocation.partition,
        "account": allocation.account,
        "output": "%x-%j.out",
        "open-mode": "append",
    }
    return [*(f"--{key}={value}" for key, value in found.items() if value is not None), "--requeue"]


def _check(config: str, overrides: Sequence[str], allocation: Allocation) -> None:
    for name, count in (("nodes", allocation.nodes), ("gpus-per-node", allocation.gpus_per_node)):
        if count < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {count}")
    rules = {"time": (TIME, "e.g. 12:00:00 or 2-00:00:00")}
    rules |= dict.fromkeys(("partition", "account"), (NAME, "a name as sinfo and sacctmgr show it"))
    said = allocation.options()
    for name, (pattern, example) in rules.items():
        if name in said and not re.fullmatch(pattern, said[name]):
            raise ConfigError(f"--{name} must be {example}, got {said[name]!r}")
    for word in (config, *overrides):
        # A line break would end the comment that says how the script was made.
        if not word.isprintable():
            raise ConfigError(f"expected a config and overrides of one line each, got {word!r}")
