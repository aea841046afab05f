"""The lease that guards a bucket, on a store with conditional puts in memory."""

import json
import threading
import time

import obstore
import pytest
from obstore.store import MemoryStore

from storage import lock
from storage.lock import LockLostError, lease


def test_the_second_waits_and_is_told_who_holds_it():
    files = MemoryStore()
    told = pytest.raises(TimeoutError, match=r"another build \(.*process \d+\).*s3://b/demo")
    with lease(files, "s3://b/demo"), told, lease(files, "s3://b/demo", timeout=0.1):
        pass
    with lease(files, "s3://b/demo", timeout=0.1) as held:
        held.check()


def test_only_one_of_many_holds_it_at_a_time():
    files, inside, most, order = MemoryStore(), [], [], []

    def work(number):
        with lease(files, "x", timeout=30, seconds=2):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)
            order.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), sorted(order)) == (1, list(range(6)))


def test_a_dead_holder_is_succeeded_and_a_living_one_is_not():
    files = MemoryStore()
    dead = lock._Lease(files, "x", 0.5)
    dead.acquire(1)  # and never renewed
    began = time.monotonic()
    with lease(files, "x", timeout=10, seconds=0.5):
        assert time.monotonic() - began > 0.5
        with pytest.raises(TimeoutError), lease(files, "x", timeout=1.5, seconds=0.5):
            pass
    with pytest.raises(LockLostError, match="nothing more is committed"):
        dead.check()
    dead.release()  # gives back nothing that is another's
    with lease(files, "x", timeout=0.1):
        pass


def test_a_holder_that_was_succeeded_knows_it():
    files = MemoryStore()
    with lease(files, "x", seconds=0.6) as held:
        held.check()
        other = json.dumps({"holder": "other", "renewals": 1, "host": "h", "pid": 1}).encode()
        obstore.put(files, "lease.json", other)
        time.sleep(0.3)
        with pytest.raises(LockLostError):
            held.check()
    assert bytes(obstore.get(files, "lease.json").bytes()) == other


def test_a_lost_answer_is_not_another_holder(monkeypatch):
    files, real = MemoryStore(), obstore.put

    def lossy(store, key, content, **options):
        real(store, key, content, **options)
        return real(store, key, content, **options)  # tried again after its answer was lost

    monkeypatch.setattr(lock.obstore, "put", lossy)
    with lease(files, "x", timeout=0.1) as held:
        held.check()


def test_a_lease_that_is_not_renewed_is_soon_nobodys(monkeypatch):
    files = MemoryStore()
    assert not lock._is_held(files)
    with lease(files, "x"):
        assert lock._is_held(files)
    assert not lock._is_held(files)
    lock._Lease(files, "x", 60).acquire(1)  # by a process that was killed then
    assert lock._is_held(files)
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.01)
    time.sleep(0.05)
    assert not lock._is_held(files)
