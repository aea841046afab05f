"""A SLURM of one machine with two GPUs that nobody has, on loopback, with a key of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.integration.processes import environment, free_ports, running, succeeds

PROGRAMS = ("munged", "slurmctld", "slurmd")
DEBIAN_PLACE = "/usr/sbin"
"""Off the PATH of users."""
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
# cred_expire, 5 s at the least, is also how long a job waits that was queued again.
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# No cgroups: a container has none to give.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""
# SLURM counts files: any two that are there.
GPUS = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run munge, the controller and one node; yield the variables by which commands reach them."""
    programs = {name: _program(name) for name in PROGRAMS}
    controller, node = free_ports(2)
    # Not pytest's folder: munge wants one that all may enter, and a short path for its socket.
    with tempfile.TemporaryDirectory(prefix="hypersigma-slurm-") as made, ExitStack() as stack:
        folder = Path(made)
        folder.chmod(0o755)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        host = socket.gethostname().split(".")[0]
        text = CONFIG.format(host=host, controller=controller, node=node, user=user, folder=folder)
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(GPUS)
        for name in ("state", "spool"):
            (folder / name).mkdir(mode=0o755)
        env = environment(SLURM_CONF=str(folder / "slurm.conf"))

        def start(name: str, *arguments: object, check: list[str]) -> None:
            command = [programs[name], *map(str, arguments)]
            stack.enter_context(
                running(name, command, succeeds(check, env), folder=folder, env=env)
            )

        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [
            f"--{name}={folder}/munge.{suffix}"
            for name, suffix in {
                "key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed",
                "log-file": "log",
            }.items()
        ]  # fmt: skip
        encode = ["munge", f"--socket={folder}/munge.socket", "--no-input"]
        start("munged", "--foreground", *files, check=encode)
        conf = f"{folder}/slurm.conf"
        start("slurmctld", "-D", "-c", "-f", conf, check=["scontrol", "ping"])
        idle = ["bash", "-c", '[ "$(sinfo --noheader --partition=low --format=%T)" = idle ]']
        start("slurmd", "-D", "-f", conf, "-N", host, check=idle)
        yield {"SLURM_CONF": conf}


def _program(name: str) -> str:
    path = os.pathsep.join((os.environ["PATH"], DEBIAN_PLACE))
    if found := shutil.which(name, path=path):
        return found
    raise RuntimeError(
        f"SLURM is missing: no {name} on the PATH nor in {DEBIAN_PLACE}; `make services` as root "
        "installs it on Debian, elsewhere install slurm-wlm and munge by hand"
    )
