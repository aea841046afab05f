"""Work on one product in a process of its own, which may die without taking the build along."""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pipeline.sources import Product

LIMIT_SECONDS = 2 * 3600
"""Longer, and it is taken to hang."""


def apart[T](work: Callable[[Product], T], product: Product) -> T:
    """Return what `work` makes of a product, in a process that ends with this one.

    Raises:
        ChildProcessError: The process died, or took longer than `LIMIT_SECONDS`.
        Exception: What the work raised.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, work, product), daemon=True)
    process.start()
    send.close()  # or its end would not be seen
    try:
        if not receive.poll(LIMIT_SECONDS):
            raise ChildProcessError(
                f"{product.name}: expected to be done within {LIMIT_SECONDS} s, got no end: take "
                "it away, or look what it waits for and `retry --failed`"
            )
        outcome: T | Exception = receive.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(_in_words(product, process.exitcode or 0)) from None
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _in_words(product: Product, code: int) -> str:
    if code < 0:
        return (
            f"{product.name}: the process that worked on it was killed by signal {-code} "
            f"({signal.Signals(-code).name}), most often because memory ran out: give the machine "
            "more memory and `retry --failed`, or take the product away"
        )
    return (
        f"{product.name}: the process that worked on it ended with exit code {code} and without an "
        "answer; its last words are on stderr"
    )


def _work(send: Connection, work: Callable[[Product], Any], product: Product) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        outcome = work(product)
    except Exception as error:  # raised again where it can be named
        outcome = _that_travels(error)
    with suppress(BrokenPipeError):  # the build is gone
        send.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _that_travels(error: Exception) -> Exception:
    """Return an error that can be sent, with the same text."""
    try:
        same = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own, a moment ago
    except Exception:
        kept = isinstance(error, ValueError | OSError)
        text = str(error) if kept else f"{type(error).__name__}: {error}"
        return OSError(text) if isinstance(error, OSError) else ValueError(text)
    return error if str(same) == str(error) else ValueError(str(error))
