"""Worker processes end when the process that started them is gone, whatever ended it."""

import multiprocessing
import multiprocessing.connection
import os
import threading

_LOOK_SECONDS = 1.0


def end_with_parent() -> None:
    """End this worker within seconds of its parent's death, even in the middle of a read.

    torch's own workers look for their parent only when they have nothing to do.
    """
    # Taken here: once the parent is dead, a worker has another one.
    threading.Thread(target=_watch, args=(os.getppid(),), name="orphans", daemon=True).start()


def _watch(first: int) -> None:
    parent = multiprocessing.parent_process()
    while os.getppid() == first:
        # A forked sibling may hold the other end of the sentinel: so both are looked at. By
        # forkserver, the process above is the server, which a dead main process takes with it.
        if parent is None:
            threading.Event().wait(_LOOK_SECONDS)
        elif multiprocessing.connection.wait([parent.sentinel], _LOOK_SECONDS):
            break
    # Not sys.exit: nobody is left to take what would be flushed, and the reading thread may hang.
    os._exit(1)
