import base64
import io

import matplotlib.image
import numpy as np
import pytest

from hypersigma.cubes.benchmarks import read_benchmark
from hypersigma.tables.figures import FIGURES, Shown, draw, in_order
from hypersigma.tasks.cubetasks import CUBE_TASKS

KINDS = {
    "patch_classification": ("classes", 1), "segmentation": ("classes", 1),
    "change_detection": ("change", 1),
    "target_detection": ("target", 2), "anomaly_detection": ("target", 2),
    "unmixing": ("unmixing", 2), "denoising": ("unmixing", 2), "super_resolution": ("unmixing", 2),
}  # fmt: skip
"""Made scene of each task, and how many figures it has."""


def true_maps(task, scene):
    """What a method that is always right would say."""
    clean = scene.cube.physical_CHW()
    return {
        "class": np.maximum(scene.labels_HW, 1), "score": scene.labels_HW + 0.0,
        "abundances": scene.abundances_EHW, "endmembers": scene.endmembers_CE.T,
        "denoised": clean, "enlarged": clean[:, :60, :60],
    }  # fmt: skip


def pixels(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("task", FIGURES)
def test_each_task_has_pictures(task):
    kind, count = KINDS[task]
    scene = read_benchmark(f"synthetic_{kind}")
    shown = [Shown(name, true_maps(task, scene)) for name in ("one", "HyperSIGMA tiny both, x")]
    drawn = list(draw(task, scene, shown))
    assert len(drawn) == count
    for _, uri in drawn:
        image = pixels(uri)
        assert image[..., :3].std() > 0.05  # not an empty page
    assert list(draw(task, scene, [])) == []


def test_every_task_can_be_drawn():
    assert set(CUBE_TASKS) <= set(FIGURES)


def test_endmembers_come_in_the_true_order():
    scene = read_benchmark("synthetic_unmixing")
    true_EC, turned = scene.endmembers_CE.T, [2, 0, 3, 1]
    ends, shares = in_order(3 * true_EC[turned], scene.abundances_EHW[turned], true_EC)
    np.testing.assert_array_equal(ends, 3 * true_EC)
    np.testing.assert_array_equal(shares, scene.abundances_EHW)
    ends, _ = in_order(true_EC[turned][:3], scene.abundances_EHW[:3], true_EC)
    np.testing.assert_array_equal(ends, true_EC[turned][:3])  # fewer than there are: as found
