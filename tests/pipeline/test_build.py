"""Increments: what a build does with what is new, changed, gone, broken or half done."""

import json

import pytest

import configs
from pipeline.build import DatasetConfig, build_dataset, scene_states
from storage import store
from storage.schema import SchemaError
from tests.pipeline import fake_products as fake


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder of products, and what builds it."""
    fake.install(monkeypatch.setattr)
    # Another process would look for real products; test_kills.py has one.
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "apart", lambda work, product: work(product))
    return World(tmp_path)


class World:
    def __init__(self, folder):
        self.folder, self.location = folder, folder / "store"
        (folder / "raw").mkdir()
        self.configure()

    def configure(self, **settings):
        self.path = fake.write_config(self.folder, self.location, **settings)

    @property
    def config(self):
        return configs.load(DatasetConfig, self.path)

    def write(self, *names, **options):
        for name in names:
            fake.write_product(self.folder / "raw", name, **options)

    def remove(self, *names):
        for name in names:
            (self.folder / "raw" / name).unlink()

    def build(self, **options):
        return build_dataset(self.config, **options)

    def states(self):
        return {s.product: s.state for s in scene_states(self.config)}

    def content(self, version=None):
        found = store.open_version(self.location, version)
        assert sorted(found["scenes"].group_keys()) == sorted(
            name for name in found["index/scenes/scene_id"][:].tolist()
        )
        return {name: group.attrs["content"] for name, group in found["scenes"].groups()}


def interrupted_after(count):
    """A runner that is cut off once so many scenes are finished."""

    def run(tasks, start):
        for task in tasks[:count]:
            yield task, start(task)(task.path)
        raise KeyboardInterrupt

    return run


def test_new_scenes_add_and_unchanged_ones_are_not_opened(world, monkeypatch):
    world.write("a", "b")
    assert world.build().added == ("a", "b")
    world.write("c")
    opened = []

    def open_scene(path):
        opened.append(path.name)
        return fake.open_product(path)

    monkeypatch.setattr(fake.readers, "open_scene", open_scene)
    assert (world.build().version, opened) == ("v2", ["c"])
    assert world.build().version is None
    assert opened == ["c"]


def test_a_changed_source_renews_its_scene_alone(world, monkeypatch):
    world.write("a", "b")
    world.build()
    before = world.content()
    world.write("a", seed=7)
    made = []
    real = store.write_scene

    def write_scene(fork, tiles):
        made.append(tiles.attrs["scene_id"])
        return real(fork, tiles)

    monkeypatch.setattr(store, "write_scene", write_scene)
    report = world.build()
    assert (report.version, report.added, made) == ("v2", ("a",), ["a"])
    after = world.content()
    assert after["b"] == before["b"]
    assert after["a"] != before["a"]
    assert world.content("v1") == before


def test_another_land_mask_renews_all_scenes_and_the_same_one_elsewhere_none(world):
    world.write("a", "b")
    world.build()
    ring = [[0, 40], [12, 40], [12, 60], [0, 60], [0, 40]]
    text = json.dumps({"type": "Polygon", "coordinates": [ring]})
    for name, masks, added in [
        ("here.json", text, ("a", "b")), ("there.json", text, ()),
        ("there.json", text + "\n", ("a", "b")),
    ]:  # fmt: skip
        mask = world.folder / name
        mask.write_text(masks)
        world.configure(split={"land_mask": str(mask)})
        assert world.build().added == added
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r"split\.land_mask: expected .* found nothing at"):
        world.build()


def test_a_file_that_was_only_touched_is_hashed_and_left(world):
    world.write("a")
    world.build()
    path = world.folder / "raw" / "a"
    path.write_bytes(path.read_bytes())
    assert world.build().version is None


def test_a_removed_source_is_retired_in_the_next_version(world):
    world.write("a", "b", "c")
    world.build()
    world.remove("b")
    report = world.build()
    assert (report.version, report.retired, report.added) == ("v2", ("b",), ())
    assert set(world.content()) == {"a", "c"}
    assert set(world.content("v1")) == {"a", "b", "c"}


def test_a_disk_that_is_not_mounted_does_not_empty_the_dataset(world):
    world.write("a", "b", "c")
    world.build()
    world.remove("a", "b")
    with pytest.raises(SchemaError, match=r"lacks 2 of the 3 scenes.*max_retired=0\.67"):
        world.build()
    world.configure(max_retired=0.67)
    assert world.build().retired == ("a", "b")


def test_another_recipe_makes_all_scenes_again_and_mixes_none(world):
    world.write("a", "b")
    world.build()
    world.write("b", error="a torn tape")
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))
    report = world.build()
    assert (report.version, report.added, report.retired) == ("v2", ("a",), ("b",))
    assert [bad.scene for bad in report.failures] == ["b"]
    assert set(world.content()) == {"a"}
    versions = store.versions(store.open_repository(world.location))
    assert versions[0].recipe_hash != versions[1].recipe_hash


def test_a_changed_band_list_marks_only_its_sensor_stale(world, monkeypatch):
    from dataclasses import replace

    from pipeline import recipe as recipes
    from pipeline.sensors import SENSORS

    world.write("a")
    world.build()
    wider = replace(SENSORS["ahsi"], ceiling=4000)
    monkeypatch.setitem(recipes.SENSORS, "ahsi", wider)
    assert world.build().version is None
    monkeypatch.setitem(recipes.SENSORS, "hyperion", replace(SENSORS["hyperion"], ceiling=4000))
    assert world.build().added == ("a",)


def test_a_damaged_source_keeps_the_scene_that_was_made_of_it(world):
    world.write("a", "b")
    world.build()
    world.write("a", error="a torn tape")
    report = world.build()
    assert (report.version, report.retired) == (None, ())
    assert "a torn tape" in report.failures[0].reason
    assert set(world.content()) == {"a", "b"}


def test_states_and_quarantine(world):
    world.write("bad", error="a torn tape")
    world.write("good")
    assert world.states() == {"bad": "new", "good": "new"}
    for _ in range(2):
        assert len(world.build().failures) == 1
        assert world.states() == {"bad": "failed", "good": "done"}
    world.build()
    assert world.states()["bad"] == "quarantined"
    report = world.build()
    assert (report.failures, [q.scene for q in report.quarantined]) == ((), ["bad"])
    assert "a torn tape" in report.quarantined[0].reason
    world.write("bad", seed=3)  # mended: it is tried by itself
    assert world.build().added == ("bad",)
    assert world.states() == {"bad": "done", "good": "done"}


def test_retry_takes_what_failed_and_nothing_else(world):
    flag = world.folder / "mounted"
    world.write("bad", sick=str(flag))
    world.write("good")
    for _ in range(3):
        world.build()
    assert world.states()["bad"] == "quarantined"
    world.write("new")
    world.remove("good")
    flag.touch()
    report = world.build(only_failed=True)
    assert (report.version, report.added, report.retired) == ("v2", ("bad",), ())
    assert set(world.content()) == {"bad", "good"}
    assert world.states() == {"bad": "done", "new": "new"}


def test_two_products_of_one_scene_are_not_both_taken(world, monkeypatch):
    world.write("a", "b")
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: "a")
    report = world.build()
    assert report.added == ("a",)
    assert "got a, which a is, too" in report.failures[0].reason


def test_an_interrupted_build_keeps_what_is_finished(world):
    world.write("a", "b", "c")

    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(2))
    assert world.states() == {"a": "done", "b": "done", "c": "new"}
    with pytest.raises(SchemaError, match="no version yet"):
        store.open_version(world.location)
    begun = []

    def rest(tasks, start):
        for task in tasks:
            begun.append(task.product)
            yield task, start(task)(task.path)

    report = world.build(run=rest)
    assert (report.version, report.added, begun) == ("v1", ("a", "b", "c"), ["c"])


def test_what_was_finished_before_its_source_went_is_not_published(world):
    world.write("a", "b")

    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(1))
    world.remove("a")
    assert world.build().added == ("b",)
    assert set(world.content()) == {"b"}


def test_all_that_was_finished_is_gone(world):
    world.write("a", "b")
    world.build()
    world.write("c", "d")

    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(1))
    world.remove("c", "d")
    assert world.build().version is None
    assert world.build().version is None
    assert set(world.content()) == {"a", "b"}


def test_a_product_that_cannot_be_named_is_put_in_quarantine_too(world, monkeypatch):
    monkeypatch.setattr(fake.plan, "scene_id_of_name", lambda path: None)
    world.write("bad", error="a torn tape")
    world.write("good")
    assert [len(world.build().failures) for _ in range(4)] == [1, 1, 1, 0]
    assert world.states() == {"bad": "quarantined", "good": "done"}
    world.write("bad")
    assert world.build().added == ("bad",)


def test_garbage_is_collected_and_no_version_is_hurt(world):
    world.write("a", "b")
    world.build()
    world.write("a", seed=5)

    def cut(tasks, start):
        start(tasks[0])(tasks[0].path)  # written, and never checkpointed
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.build(run=cut)
    from datetime import timedelta

    before = world.content()
    assert store.collect_garbage(world.location, timedelta(hours=1))["objects"] == 0
    seen = store.collect_garbage(world.location, timedelta(0), dry_run=True)
    found = store.collect_garbage(world.location, timedelta(0))
    assert found["objects"] == seen["objects"] > 0
    assert world.content() == before
    scene = store.scene_dataset(store.open_version(world.location), "a")
    assert scene.tiles.values.any()
    assert world.build().added == ("a",)


def test_the_commands_say_what_the_functions_do(world, capsys):
    from pipeline.__main__ import app

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            app(list(arguments))
        return caught.value.code, capsys.readouterr()

    world.write("good")
    world.write("bad", error="a torn tape")
    assert run("build", str(world.path))[0] == 1
    code, said = run("status", str(world.path), "--json")
    states = {entry["product"]: entry["state"] for entry in json.loads(said.out)}
    assert (code, states) == (0, {"bad": "failed", "good": "done"})
    code, said = run("status", str(world.path))
    assert "0 new, 0 running, 1 done, 1 failed, 0 quarantined" in said.out
    assert "a torn tape" in " ".join(said.out.split())
    assert run("retry", str(world.path))[0] == 2
    assert run("retry", str(world.path), "--failed")[0] == 1
    world.write("bad")
    assert run("retry", str(world.path), "--failed")[0] == 0
    code, said = run("gc", str(world.location), "--older-than", "30d")
    assert (code, said.out) == (0, "0 objects removed, 0.0 MB\n")
    assert run("gc", str(world.location), "--older-than", "soon")[0] == 2


def test_what_another_recipe_finished_leaves_the_head_as_it_is(world):
    world.write("a", "b", "c")
    world.build()
    before = world.content()
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))

    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(2))
    world.configure()  # the old recipe again
    world.write("bad", error="a torn tape")
    report = world.build()
    assert (report.version, report.retired) == (None, ())
    report = world.build(only_failed=True)
    assert (report.version, report.retired) == (None, ())
    assert world.content() == before


def test_a_night_on_which_all_fails_does_not_empty_the_dataset(world):
    flag = world.folder / "mounted"
    flag.touch()
    world.write("a", "b", "c", away=str(flag))
    world.build()
    flag.unlink()
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))
    with pytest.raises(SchemaError, match=r"cannot be made again.*the disk was away"):
        world.build()
    assert len(world.content()) == 3
    flag.touch()
    assert world.build().added == ("a", "b", "c")


def test_an_error_of_the_last_checkpoint_hides_no_other(world, monkeypatch):
    world.write("a", "b")

    def interrupted(tasks, start):
        yield tasks[0], start(tasks[0])(tasks[0].path)
        monkeypatch.setattr(store, "checkpoint", lambda *_: 1 / 0)
        yield tasks[1], start(tasks[1])(tasks[1].path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted)


def test_a_source_with_keys_in_it_is_refused_and_not_shown(world):
    with pytest.raises(configs.ConfigError, match="without keys") as caught:
        configs.load(DatasetConfig, world.path, ["source=s3://KEY:SECRET@bucket/raw"])
    assert "SECRET" not in str(caught.value)


def test_a_linked_path_is_the_same_store(world):
    world.write("a")
    (world.folder / "link").symlink_to(world.location)
    world.build()
    world.configure()
    linked = configs.load(DatasetConfig, world.path, [f"store={world.folder / 'link'}"])
    with store.commit_lock(world.location):
        assert store.is_locked(linked.store)
    assert build_dataset(linked).version is None


def test_a_renamed_product_is_done_and_its_scene_is_kept(world, monkeypatch):
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: None)
    world.write("first", scene="a")
    world.build()
    world.remove("first")
    world.write("second", scene="a")
    assert world.build().version is None
    assert world.states() == {"second": "done"}
    (world.folder / "raw" / "second").write_text("torn")
    report = world.build()
    assert ([bad.scene for bad in report.failures], report.retired) == (["second"], ())
    assert set(world.content()) == {"a"}


@pytest.mark.parametrize("error", [OSError("the disk is full"), MemoryError("too large")])
def test_a_renewal_that_failed_is_tried_again(world, monkeypatch, error):
    world.write("a", "b")
    world.build()
    before = world.content()
    world.write("a", seed=9)

    def broken(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_scene", broken)
        assert [bad.scene for bad in world.build().failures] == ["a"]
    assert world.states() == {"a": "failed", "b": "done"}
    assert world.content() == before
    assert world.build().added == ("a",)
    assert world.content()["a"] != before["a"]


def test_a_source_that_stays_damaged_stays_failed_and_its_scene_stays(world):
    world.write("a", "b")
    world.build()
    before = world.content()
    (world.folder / "raw" / "a").write_text("torn")
    for _ in range(2):
        assert [bad.scene for bad in world.build().failures] == ["a"]
        assert world.states()["a"] == "failed"
    world.build()
    assert world.states()["a"] == "quarantined"
    assert not world.build().failures
    assert world.content() == before
    world.remove("a")
    assert world.build().retired == ("a",)


def test_nights_without_the_disk_put_nothing_in_quarantine(world):
    flag = world.folder / "mounted"
    flag.touch()
    world.write("a", "b", "c", away=str(flag))
    world.build()
    flag.unlink()
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))
    for _ in range(4):
        with pytest.raises(SchemaError, match="the disk was away"):
            world.build()
    assert set(world.states().values()) == {"failed"}
    flag.touch()
    assert world.build(only_failed=True).added == ("a", "b", "c")


def test_retry_takes_stale_scenes_out_of_quarantine(world):
    world.write("a", "b")
    world.build()
    world.write("a", "b", error="a torn tape")
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))
    for _ in range(4):
        with pytest.raises(SchemaError, match=r"torn tape.*retry --failed"):
            world.build()
    assert set(world.states().values()) == {"quarantined"}
    world.write("a", "b", seed=3)
    assert world.build(only_failed=True).added == ("a", "b")


def test_a_refused_retry_keeps_what_is_finished(world):
    world.write("a")
    world.build()
    world.write("b", "c")
    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(2))
    world.configure(recipe=fake.RECIPE.replace("tile: {}", "tile: {min_valid: 0.5}"))
    with pytest.raises(SchemaError, match="another recipe"):
        world.build(only_failed=True)
    world.configure()
    begun = []

    def rest(tasks, start):
        begun.extend(task.product for task in tasks)
        return iter(())

    assert world.build(run=rest).added == ("b", "c")
    assert begun == []


def test_of_two_products_of_one_scene_that_which_it_was_made_of_stays(world, monkeypatch):
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: None)
    world.write("m", scene="x")
    world.build()
    before = world.content()
    world.write("a", scene="x", seed=5)
    for _ in range(4):
        (bad,) = world.build().failures
        assert bad.scene == "a"
        assert "got x, which m is, too: take one of the two away" in bad.reason
    assert world.states() == {"a": "failed", "m": "done"}
    assert world.content() == before
    world.remove("m")
    assert world.build().added == ("x",)


def test_a_torn_product_does_not_take_the_place_of_a_renamed_one(world, monkeypatch):
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: None)
    world.write("first", scene="a")
    world.build()
    world.remove("first")
    world.write("second", scene="a")
    (world.folder / "raw" / "first").write_text("torn")
    for _ in range(3):
        assert [bad.scene for bad in world.build().failures] == ["first"]
    assert world.states() == {"first": "quarantined", "second": "done"}
    assert set(world.content()) == {"a"}


def test_a_finished_scene_whose_product_is_away_for_a_moment_is_not_thrown_away(world, monkeypatch):
    for module in (fake.build, fake.plan):
        monkeypatch.setattr(module, "scene_id_of_name", lambda path: None)
    world.write("a", "b")
    with pytest.raises(KeyboardInterrupt):
        world.build(run=interrupted_after(2))
    (world.folder / "raw" / "b").write_text("torn")
    assert world.build().added == ("a", "b")
