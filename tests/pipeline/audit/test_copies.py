import numpy as np
import pytest

from pipeline.audit.copies import near_copies


@pytest.mark.parametrize("bits", [64, 20])
def test_pairs_are_those_of_a_comparison_of_all(bits):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**bits, 1500, dtype=np.uint64)
    for flips in (1, 2, 3, 4):
        some = words[:50].copy()
        for _ in range(flips):
            some ^= np.uint64(1) << rng.integers(0, 64, 50).astype(np.uint64)
        words = np.concatenate([words, some])
    words = np.unique(words)
    rng.shuffle(words)
    apart = np.bitwise_count(words[:, None] ^ words)
    one, other = np.nonzero(np.triu(apart <= 3, 1))
    got = near_copies(words)
    assert sorted(zip(*got, strict=True)) == sorted(zip(one, other, strict=True))


def test_large_groups_of_equal_parts():
    rng = np.random.default_rng(1)
    words = np.unique(rng.integers(0, 2**24, 4000, dtype=np.uint64) << np.uint64(5))
    apart = np.bitwise_count(words[:, None] ^ words)
    expected = np.nonzero(np.triu(apart <= 3, 1))
    got = near_copies(words)
    assert sorted(zip(*got, strict=True)) == sorted(zip(*expected, strict=True))


def test_no_words():
    one, other = near_copies(np.empty(0, np.uint64))
    assert one.size == other.size == 0
