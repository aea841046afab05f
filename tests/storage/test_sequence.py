"""Which sample comes when, over any ranks, workers, stops and resumptions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.schema import SchemaError
from storage.sequence import Sequence, Source, Steps


def source(count, *, first=0, shard=5):
    rows = np.arange(first, first + count)
    return Source(rows, rows // shard)


def ids(draws):
    return list(zip(draws.source.tolist(), draws.row.tolist(), strict=True))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 9),
       st.sampled_from(["global", "shard"]), st.integers(1, 4))  # fmt: skip
def test_an_epoch_has_each_row_of_each_source_once(lengths, epoch, order, window):
    sequence = Sequence([source(n) for n in lengths], 3, order, window)
    draws = sequence.draws(epoch)
    assert sorted(ids(draws)) == [(s, r) for s, n in enumerate(lengths) for r in range(n)]
    assert set(draws.epoch.tolist()) == {epoch}
    assert len(draws.row) == sequence.length


@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(0, 2**31), st.data())
def test_with_weights_each_source_goes_through_its_own_epochs(lengths, seed, data):
    weights = [data.draw(st.floats(0.05, 1)) for _ in lengths]
    sequence = Sequence([source(n) for n in lengths], seed, weights=weights)
    seen = {number: [] for number in range(len(lengths))}
    counts = []
    for epoch in range(5):
        draws = sequence.draws(epoch)
        assert len(draws.row) == sequence.length
        counts.append(np.bincount(draws.source, minlength=len(lengths)))
        for number, row, own in zip(draws.source.tolist(), draws.row, draws.epoch, strict=True):
            seen[number].append((int(own), int(row)))
    for number, count in enumerate(lengths):
        got = seen[number]
        for own in range(max(own for own, _ in got)):
            assert sorted(r for e, r in got if e == own) == list(range(count))
        assert len(set(got)) == len(got)
    assert all((found == counts[0]).all() for found in counts)
    share = np.array(weights) / sum(weights) * sum(lengths)
    assert (np.abs(counts[0] - share) < 1 + (share < 1)).all()


def test_shards_are_mixed_a_few_at_a_time():
    sequence = Sequence([source(1000, shard=10)], 0, "shard", 4)
    shard = sequence.draws(0).row // 10
    groups = shard.reshape(25, 40)
    assert all(len(set(group.tolist())) == 4 for group in groups)
    assert len({tuple(sorted(set(group.tolist()))) for group in groups}) == 25
    assert (np.diff(shard) != 0).mean() > 0.6
    assert sequence.draws(1).row.tolist() != sequence.draws(0).row.tolist()


@settings(max_examples=300)
@given(st.integers(1, 90), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3),
       st.integers(0, 60), st.integers(1, 4), st.integers(1, 5), st.booleans())  # fmt: skip
def test_each_id_comes_once_wherever_it_stops_and_whoever_goes_on(
    length, batch, world, epochs, stop, new_world, new_batch, pad
):
    ends = "pad" if pad else "drop"
    if not pad and length < max(batch * world, new_batch * new_world):
        return
    before = Steps(length, batch, world, ends)
    after = Steps(length, new_batch, new_world, ends)
    whole = Sequence([source(length)], 1)
    epoch, position, given = 0, 0, {}

    def go(steps, count):
        nonlocal epoch, position
        for _ in range(count):
            epoch, position = steps.start(epoch, position)
            if epoch == epochs:
                return
            drawn = whole.draws(epoch).row
            for rank in range(steps.world):
                places, padding = steps.places(position, rank)
                assert len(places) == steps.batch_size
                for place, extra in zip(places.tolist(), padding.tolist(), strict=True):
                    if not extra:
                        given.setdefault(epoch, []).append((place, int(drawn[place])))
            position += steps.size

    go(before, stop)
    go(after, 1000)
    for number in range(epochs):
        got = sorted(given[number])
        drawn = whole.draws(number).row.tolist()
        assert len({row for _, row in got}) == len(got)
        # In the seeded order, without a gap: what `drop` leaves out is the epoch's end.
        assert [row for _, row in got] == drawn[: len(got)]
        assert length - len(got) < (1 if pad else max(before.size, after.size))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SchemaError, match="at least one tile"):
        Sequence([source(3), source(0)], 0)
    with pytest.raises(SchemaError, match="2 positive numbers"):
        Sequence([source(3), source(2)], 0, weights=[1, 0])
    with pytest.raises(SchemaError, match="global or shard"):
        Sequence([source(3)], 0, order="random")
    with pytest.raises(ValueError, match="from 1"):
        Steps(5, 0)
    with pytest.raises(SchemaError, match=r"at least .* = 6 tiles, got 5"):
        Steps(5, 2, 3)
    assert Steps(5, 2, 3, "pad").left(0) == 1
