"""What the other process does in a test of the lock."""

from storage.lock import commit_lock


def hold(location, ready, go):
    with commit_lock(location):
        ready.set()
        go.wait(60)
