import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt

from hypersigma.cubes.splits import (
    SplitConfig,
    draw_split,
    load_split,
    save_split,
)


def labels(seed=0, *, classes=3, sides=(60, 70)):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, classes + 1, (6, 7))
    return np.kron(small, np.ones((10, 10), int))[: sides[0], : sides[1]]


@pytest.mark.parametrize("seed", range(4))
def test_training_pixels_are_apart_from_measured_ones(seed):
    truth = labels(seed)
    split = draw_split(truth, SplitConfig(n_per_class=8, val=0.5, block=15, guard=3, seed=seed))
    for number in (1, 2, 3):
        assert split.train_HW[truth == number].sum() == 8
        assert split.val_HW[truth == number].sum() == 4
        assert split.test_HW[truth == number].any()
    assert not (split.train_HW | split.val_HW | split.test_HW)[truth == 0].any()
    away = distance_transform_cdt(~split.test_HW, "chessboard")
    assert away[split.train_HW | split.val_HW].min() > 3
    assert not (split.train_HW & split.val_HW).any()


def test_seeds_draw_other_pixels_and_the_same_seed_the_same():
    truth = labels()
    first, again, other = (draw_split(truth, SplitConfig(seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train_HW, again.train_HW)
    assert (first.train_HW != other.train_HW).any()


def test_a_share_of_each_class_from_everywhere():
    truth = labels()
    config = SplitConfig(n_per_class=None, ratio=0.1, disjoint=False)
    split = draw_split(truth, config)
    for number in (1, 2, 3):
        of_class = truth == number
        assert split.train_HW[of_class].sum() == round(0.1 * of_class.sum())
        assert (split.train_HW | split.test_HW)[of_class].all()


def test_too_few_pixels_are_counted():
    truth = np.zeros((60, 60), int)
    truth[:40], truth[50, :5] = 1, 2
    for disjoint in (True, False):
        with pytest.raises(ValueError, match=r"class 2 10 wanted and \d found.*disjoint|choose"):
            draw_split(truth, SplitConfig(n_per_class=10, disjoint=disjoint))
    with pytest.raises(ValueError, match="class 2 5 wanted and 5 found, and one more"):
        draw_split(truth, SplitConfig(n_per_class=5, disjoint=False))
    with pytest.raises(ValueError, match=r"two classes or more, got \[1\]"):
        draw_split((truth == 1).astype(int), SplitConfig())
    with pytest.raises(ValueError, match=r"got \[\] in 0 labelled pixels of 3600"):
        draw_split(0 * truth, SplitConfig())


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="n_per_class or ratio"):
        SplitConfig(n_per_class=3, ratio=0.1)
    with pytest.raises(ValueError, match="block 8 and guard 4"):
        SplitConfig(block=8, guard=4)


def test_a_split_is_read_as_it_was_written(tmp_path):
    split = draw_split(labels(), SplitConfig())
    save_split(split, tmp_path / "split.npz")
    found = load_split(tmp_path / "split.npz", (60, 70))
    for name in ("train_HW", "val_HW", "test_HW"):
        np.testing.assert_array_equal(getattr(found, name), getattr(split, name))
    with pytest.raises(ValueError, match=r"image's \(60, 71\) pixels, got \(60, 70\)"):
        load_split(tmp_path / "split.npz", (60, 71))
    np.savez(tmp_path / "other.npz", train_HW=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"found no \['val_HW', 'test_HW'\]"):
        load_split(tmp_path / "other.npz", (2, 2))
    again = draw_split(labels(), SplitConfig(seed=5, file=tmp_path / "split.npz"))
    np.testing.assert_array_equal(again.train_HW, split.train_HW)
    with pytest.raises(ValueError, match=r"labels in all its pixels, got none in \d+"):
        draw_split(labels() * (labels() > 1), SplitConfig(file=tmp_path / "split.npz"))
