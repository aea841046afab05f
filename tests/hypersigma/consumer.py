"""Reads a set batch by batch and logs what it got; run as a process, and killed by tests."""

import argparse
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

from hypersigma.loader import TileLoader
from storage.stream import Stream, open_shards, select

SEED = 9


def main():
    parser = argparse.ArgumentParser()
    for name, kind in (("root", Path), ("log", Path), ("workers", int), ("batch", int),
                       ("world", int)):  # fmt: skip
        parser.add_argument(name, type=kind)
    parser.add_argument("--order", default="global")
    parser.add_argument("--method", default="fork")
    args = parser.parse_args()
    shards, state = open_shards(args.root), last_state(args.log)
    with ExitStack() as stack:
        loaders = [stack.enter_context(loader(shards, args, rank)) for rank in range(args.world)]
        for one in loaders:
            one.load_state_dict(state)
        log = os.open(args.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if args.log.exists() and not whole_lines(args.log)[1]:
            os.write(log, b"\n")  # behind what a kill cut off
        while True:
            os.write(log, line([next(one) for one in loaders]))
            time.sleep(0.005)


def loader(shards, args, rank):
    stream = Stream(
        shards, select(shards), batch_size=args.batch, bands=2, seed=SEED, rank=rank,
        world=args.world, ends="pad", order=args.order, window=2,
    )  # fmt: skip
    return TileLoader(stream, workers=args.workers, method=args.method)


def line(batches):
    """Return what all ranks got, in the order of the stream, and the state to go on from."""
    (after,) = {json.dumps(batch.after) for batch in batches}
    ids = [
        name
        for place in range(len(batches[0].tile_ids))
        for name, extra in ((b.tile_ids[place], bool(b.padding[place])) for b in batches)
        if not extra
    ]
    return json.dumps({"ids": ids, "after": json.loads(after)}).encode() + b"\n"


def whole_lines(log):
    """Return a log's lines that were written to their end, and whether the last one is."""
    if not log.exists():
        return [], True
    data = log.read_bytes()
    found = []
    for text in data.split(b"\n"):
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found, data.endswith(b"\n") or not data


def last_state(log):
    lines, _ = whole_lines(log)
    return lines[-1]["after"] if lines else {"epoch": 0, "position": 0}


if __name__ == "__main__":
    main()
