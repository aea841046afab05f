"""The words and shapes that all parts meet at: scene, tile, shard; and the errors that say so."""

TILE_SIZE = 64
SPLITS = ("train", "val", "test")
SENSORS = ("hyperion", "ahsi")

SCENE_ATTRS = (
    "sensor", "platform", "scene_id", "level", "acquired",
    "sun_elevation", "sun_azimuth", "view_zenith", "nodata", "sources",
)  # fmt: skip


class SchemaError(ValueError):
    """Data that breaks the contract between two parts."""


class SceneError(SchemaError):
    """A raw product, or a file of one, that is not what it should be.

    Args:
        where: The file (or archive member) that is wrong.
        expected: What should have been there.
        got: What was there.
        todo: What the user can do about it.
    """

    def __init__(self, where: object, *, expected: str, got: str, todo: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}; {todo}")
        self.where = str(where)
        self.expected = expected
        self.got = got
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        # Pickled between processes by keyword, which Exception's own way cannot do.
        return _scene_error, (self.where, self.expected, self.got, self.todo)


def _scene_error(where: str, expected: str, got: str, todo: str) -> SceneError:
    return SceneError(where, expected=expected, got=got, todo=todo)
