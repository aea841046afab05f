import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.synth import write_products
from pipeline.synth.light import sun_distance, sun_position
from pipeline.synth.plan import plan_scene

ROOT = Path(__file__).parents[3]


def sums(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes_in_another_process_clock_and_order(out, tmp_path):
    code = (
        "import sys; from pathlib import Path; from pipeline.synth import write_products\n"
        "for first, scenes in ((2, 1), (0, 2)):\n"
        "    write_products(Path(sys.argv[1]), scenes=scenes, seed=3, first=first)\n"
    )
    again, temporary = tmp_path / "again", tmp_path / "temporary"
    temporary.mkdir()
    changed = {"TZ": "Asia/Shanghai", "PYTHONHASHSEED": "7", "TMPDIR": str(temporary)}
    environment = {**os.environ, **changed}
    subprocess.run([sys.executable, "-c", code, str(again)], check=True, cwd=ROOT, env=environment)
    listing = "truth/scenes.json"
    found, expected = sums(again), sums(out)
    del found[listing]
    assert found.items() <= expected.items()
    # Three products, for each labels and truth, and the class names.
    assert len(found) == 3 * 3 + 1
    scenes = [json.loads((folder / listing).read_text())["scenes"] for folder in (again, out)]
    assert scenes[0] == scenes[1][:3]


def test_another_seed_shows_another_landscape(out, tmp_path):
    (scene,) = write_products(tmp_path, scenes=1, seed=4)
    assert (out / scene["path"]).exists()
    assert (tmp_path / scene["path"]).read_bytes() != (out / scene["path"]).read_bytes()
    name = f"truth/labels/{scene['scene_id']}.npy"
    same = np.load(tmp_path / name) == np.load(out / name)
    assert same[np.load(out / name) > 0].mean() < 0.4


def test_refuses_a_second_landscape_in_one_folder(out):
    before = sorted(out.iterdir())
    with pytest.raises(ValueError, match="expected scenes of seed 5, got seed 3"):
        write_products(out, scenes=1, seed=5)
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"seed": -1}, {"first": -1}])
def test_refuses_counts_that_cannot_be(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected scenes >= 1"):
        write_products(tmp_path / "raw", **wrong)
    assert not (tmp_path / "raw").exists()


def test_progress_and_listing_name_every_product(out, scenes, tmp_path):
    lines = []
    (scene,) = write_products(tmp_path, scenes=1, seed=3, first=4, progress=lines.append)
    assert lines == [f"1/1 {scene['path']}"]
    assert json.loads((tmp_path / "truth/scenes.json").read_text())["scenes"] == [scene]
    assert sums(tmp_path / scene["path"]) == sums(out / scene["path"])
    assert [s.number for s in scenes.values()] == [0, 1, 2, 3, 4]
    products = {path.name for path in out.iterdir()}
    assert products == {s.path for s in scenes.values()} | {"truth"}


def test_ids_stay_apart_and_dates_are_within_the_missions():
    plans = [plan_scene(number, 0) for number in range(400)]
    assert len({plan.product for plan in plans}) == 400
    missions = {
        "EO1": (date(2000, 11, 21), date(2017, 3, 30)),
        "GF5": (date(2018, 5, 9), date(2020, 12, 31)),
        "GF5B": (date(2021, 9, 7), date(2026, 1, 1)),
    }
    for plan in plans:
        first, last = missions[plan.platform]
        assert first <= plan.acquired.date() <= last
        assert 35 < plan.sun_elevation < 80


def test_places_are_near_each_other_and_some_overlap():
    plans = [plan_scene(number, 0) for number in range(10)]
    apart = [
        np.hypot((a.lon - b.lon) * 88.7, (a.lat - b.lat) * 111)
        for i, a in enumerate(plans)
        for b in plans[:i]
    ]
    assert min(apart) < 5
    assert 30 < max(apart) < 70


def test_sun_position_matches_a_published_example():
    # Reda and Andreas 2004, NREL/TP-560-34302, table A5.1; refraction (0.015 deg) is in theirs.
    when = datetime(2003, 10, 17, 19, 30, 30, tzinfo=UTC)
    elevation, azimuth = sun_position(when, -105.1786, 39.742476)
    assert elevation == pytest.approx(90 - 50.11162, abs=0.03)
    assert azimuth == pytest.approx(194.34024, abs=0.03)


def test_sun_distance_is_shortest_in_january():
    assert sun_distance(datetime(2023, 1, 4, tzinfo=UTC)) == pytest.approx(0.98330, abs=3e-4)
    assert sun_distance(datetime(2023, 7, 6, tzinfo=UTC)) == pytest.approx(1.01668, abs=3e-4)
