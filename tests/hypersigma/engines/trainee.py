"""A process that trains as the command does, notes what it sees, and fails where it is told to."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import torch

import configs
from hypersigma import checkpoint, data, distributed, train
from hypersigma.finetune import FinetuneConfig, finetune
from hypersigma.pretrain import PretrainConfig, pretrain

TASKS = {"pretrain": (PretrainConfig, pretrain), "finetune": (FinetuneConfig, finetune)}
LONG = 600


def main():
    args = parsed()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    torch.set_num_threads(1)
    if args.seen:
        note_what_is_seen(args.seen)
    break_losses(args.nan, always=args.nan_always)
    break_steps(args)
    break_disk(args.full)
    with distributed.joined(distributed.place(), seconds=60, alone=True):
        for job in json.loads(args.jobs.read_text()):
            schema, run = TASKS[job["task"]]
            result = run(configs.check(schema, job["config"], where="test"))
            sys.stdout.write(json.dumps(result) + "\n")


def parsed():
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", type=Path, help="JSON: a list of {task, config}")
    parser.add_argument(
        "--seen", type=Path, help="gets step, micro-batch and tile ids, a file each"
    )
    parser.add_argument("--nan", type=int, nargs="*", default=(), help="slots with a NaN loss")
    parser.add_argument("--nan-always", action="store_true")
    parser.add_argument("--stall", choices=["data", "compute"], help="in the third step")
    parser.add_argument("--fail", type=int, help="process that raises an error in its third step")
    parser.add_argument("--stop", type=int, help="step in which the first process gets SIGTERM")
    parser.add_argument("--full", type=int, nargs="*", default=(), help="steps saved with no room")
    parser.add_argument("--pause", type=float, default=0.0, help="in each step [s]")
    return parser.parse_args()


def note_what_is_seen(folder):
    """Write a line for each batch that is trained on."""
    folder.mkdir(exist_ok=True)
    now = []
    seed, inputs = train.seed_globally, data.Scaling.inputs
    rank = int(os.environ.get("RANK", 0))
    log = os.open(folder / f"{rank}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def seed_globally(*seeds):
        now[:] = seeds[1:]
        seed(*seeds)

    def noting(self, batch):
        if now:
            line = {"at": list(now), "ids": batch.tile_ids, "start": batch.band_start.tolist()}
            os.write(log, b"\n" + json.dumps(line).encode() + b"\n")
            now.clear()
        return inputs(self, batch)

    train.seed_globally = seed_globally
    data.Scaling.inputs = noting


def break_losses(slots, *, always):
    leave_out, together = train._leave_out, train._together
    now = []

    def noting(at, feed, parts):
        at = leave_out(at, feed, parts)
        now[:] = [at.slot]
        return at

    def broken(losses, asked):
        found = together(losses, asked)
        if always or now[0] in slots:
            found["loss"] = float("nan")
        return found

    train._leave_out, train._together = noting, broken


def break_steps(args):
    leave_out, take = train._leave_out, train.Feed.take
    now = [0]

    def noting(at, feed, parts):
        now[0] = at.step
        time.sleep(args.pause)
        if at.step == 2 and args.fail == distributed.rank():
            raise LookupError("told to fail")
        if at.step + 1 == args.stop and not distributed.rank():
            os.kill(os.getpid(), signal.SIGTERM)
        if at.step == 2 and args.stall == "compute" and not distributed.rank():
            time.sleep(LONG)
        return leave_out(at, feed, parts)

    def slow(self):
        waits, self._next = self._next, stalled(self._next) if now[0] == 2 else self._next
        try:
            return take(self)
        finally:
            self._next = waits

    train._leave_out = noting
    if args.stall == "data":
        train.Feed.take = slow


def stalled(items):
    time.sleep(LONG)
    yield from items


def break_disk(steps):
    write = checkpoint.write_tensors

    def full(path, tensors):
        folder = next(part for part in path.parts if ".writing-step-" in part)
        if int(folder[-8:]) in steps and path.name != checkpoint.MODEL_FILE:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, tensors)

    checkpoint.write_tensors = full


if __name__ == "__main__":
    main()
