"""Windows of bands of a set's tiles, read and checked."""

import io
from collections.abc import Sequence
from typing import Any

import lz4.frame
import numpy as np
import zstandard

from storage.frames import checksum, checksums
from storage.nearby import near
from storage.payloads import Payloads
from storage.ranges import Range, files_of
from storage.rowfile import RowFile
from storage.schema import INTEGER_FILL, TILE_SIZE, DamagedError, SchemaError
from storage.shardset import ShardSet, codes


class Windows:
    """Reads windows of one set; travels to other processes without files and connections.

    Args:
        shards: An opened set.
        payloads: Keeps what comes from a bucket on disk; None: nothing is kept.
        verify: Compare what is read with the set's checksums.
        valid: Give the masks, too.
    """

    def __init__(
        self,
        shards: ShardSet,
        payloads: Payloads | None = None,
        *,
        verify: bool = True,
        valid: bool = False,
    ) -> None:
        self.shards, self.verify, self.valid = shards, verify, valid
        self._payloads = payloads
        self._load()

    def _load(self) -> None:
        index, manifest = self.shards.index, self.shards.manifest
        digests = {entry["name"]: entry["sha256"] for entry in manifest["shards"]}
        self.files = files_of(self.shards.root, digests, self._payloads)
        self.codec = manifest["options"]["codec"]
        self.shard, self._names = codes(self.shards, "shard")
        self.sensor, self.sensors = codes(self.shards, "sensor")
        self._offset, self._length = (index[name].to_numpy() for name in ("offset", "length"))
        self._spectral = index["spectral"].to_numpy()
        self._wavelength = [np.array(e["wavelength"], np.float32) for e in manifest["spectral"]]
        self._checksums = self._beside("checksums") if self.verify else None
        self._masks = self._beside("masks") if self.valid else None

    def _beside(self, name: str) -> RowFile:
        return RowFile(near(self.shards.root, self.shards.manifest[name]))

    def __getstate__(self) -> dict[str, Any]:
        kept = ("shards", "verify", "valid", "_payloads")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def kind(self, rows: np.ndarray) -> tuple[dict[str, int], set[str]]:
        """Return the bands of each sensor among rows, and all their dtypes."""
        found = [self.sensors[code] for code in np.unique(self.sensor[rows])]
        entries = {name: self.shards.manifest["sensors"][name] for name in found}
        return (
            {name: len(entry["band"]) for name, entry in entries.items()},
            {entry["dtype"] for entry in entries.values()},
        )

    def spectra(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the wavelengths of each row's bands [nm]."""
        return [self._wavelength[number] for number in self._spectral[rows]]

    def names(self, rows: np.ndarray) -> list[str]:
        """Return the rows' tile ids."""
        found: list[str] = self.shards.index["tile_id"].take(rows).to_pylist()
        return found

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Return the store's masks (row, y, x), bool."""
        if self._masks is None:
            raise ValueError("masks were not asked for: Windows(..., valid=True)")
        bits = np.unpackbits([self._masks.row(row) for row in rows.tolist()], axis=1)
        return bits.reshape(len(rows), TILE_SIZE, TILE_SIZE).view(bool)

    def read(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        into: Sequence[np.ndarray],
        *,
        scaled: bool = False,
    ) -> list[DamagedError | None]:
        """Fill arrays (band, y, x) with windows of tiles; return what went wrong with each.

        Args:
            rows: Index rows, of one dtype.
            starts: First band of each.
            into: Contiguous, of the tiles' dtype and as many bands as are wanted.
            scaled: `into` is float32 and gets stored / scale, NaN where there is no measurement.
        """
        plain = self.codec == "none"
        raw = self._scratch(rows, into) if scaled else into
        ranges = [
            self._range(row, start, target, plain=plain)
            for row, start, target in zip(rows, starts, raw, strict=True)
        ]

        def checked(number: int) -> DamagedError | None:
            one, row, start, target = ranges[number], rows[number], starts[number], raw[number]
            error = self._check(one, row, start, target)
            if error is not None and self.files.forget(one.name, one.payload):
                # What was kept near may be what is damaged.
                (error,) = self.files.read([one], lambda _: self._check(one, row, start, target))
            if error is None and scaled:
                _to_physical(target, self._about(row)["scale"], into[number])
            return error

        return self.files.read(ranges, checked)

    def _scratch(self, rows: Sequence[int], into: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Return where stored values come to; one small place for all stays in a CPU's cache."""
        dtype = np.dtype(self._about(rows[0])["dtype"])
        if self.files.one_by_one:
            return [np.empty(into[0].shape, dtype)] * len(into)
        return list(np.empty((len(into), *into[0].shape), dtype))

    def _about(self, row: int) -> dict[str, Any]:
        """Return what the manifest says of a row's sensor."""
        found: dict[str, Any] = self.shards.manifest["sensors"][self.sensors[self.sensor[row]]]
        return found

    def _range(self, row: int, start: int, target: np.ndarray, *, plain: bool) -> Range:
        payload = int(self._offset[row]), int(self._length[row])
        name = self._names[self.shard[row]]
        if not plain:
            return Range(name, payload[0], memoryview(bytearray(payload[1])), payload)
        band_bytes = TILE_SIZE**2 * target.dtype.itemsize
        return Range(name, payload[0] + start * band_bytes, memoryview(target).cast("B"), payload)

    def _check(self, one: Range, row: int, start: int, target: np.ndarray) -> DamagedError | None:
        if self.codec == "none":
            bad = self._wrong_band(target, row, start)
        else:
            bad = self._wrong_frame(one.into, row) or self._unpack(one.into, start, target)
        if bad is None:
            return None
        tile = self.shards.index["tile_id"][row].as_py()
        return DamagedError(
            f"{self.shards.root}/{one.name}: {bad} of {tile} must have the checksum that the set "
            "says, got another: damaged; write the set again with `hypersigma-data shards`"
        )

    def _wrong_band(self, target: np.ndarray, row: int, start: int) -> str | None:
        if self._checksums is None:
            return None
        expected = self._checksums.row(row, start, start + len(target))
        wrong = np.flatnonzero(expected != checksums(target))
        return f"band {start + int(wrong[0])}" if len(wrong) else None

    def _wrong_frame(self, data: memoryview, row: int) -> str | None:
        if self._checksums is None:
            return None
        same = checksum(data) == int(self._checksums.row(row, 0, 1)[0])
        return None if same else "the compressed pixels"

    def _unpack(self, data: memoryview, start: int, target: np.ndarray) -> str | None:
        try:
            target[:] = _decoded(self.codec, data)[start : start + len(target)]
        except (RuntimeError, zstandard.ZstdError, ValueError, EOFError, MemoryError):
            return "the compressed pixels"  # without checksums, this is where damage shows
        return None


def common_window(sets: Sequence[tuple[Windows, np.ndarray]], bands: int | None) -> tuple[int, Any]:
    """Return the bands and the dtype of a batch of rows of sets, checked against all sensors.

    Raises:
        SchemaError: Tiles that do not fit one batch.
    """
    widths: dict[str, int] = {}
    dtypes: set[str] = set()
    for windows, rows in sets:
        found, kinds = windows.kind(rows)
        dtypes |= kinds
        for name, width in found.items():
            if widths.setdefault(name, width) != width:
                raise SchemaError(
                    f"all sets must have the same bands of a sensor, got {widths[name]} and "
                    f"{width} of {name}; write them by one recipe"
                )
    if len(dtypes) > 1:
        raise SchemaError(
            f"tiles of a batch must have one dtype, got {sorted(dtypes)}; select a sensor"
        )
    if bands is None and len(set(widths.values())) > 1:
        raise SchemaError(
            f"tiles of a batch must have equally many bands, got {widths}; "
            "give `bands`, or select a sensor"
        )
    count = min(widths.values()) if bands is None else bands
    if not 1 <= count <= min(widths.values()):
        raise SchemaError(
            f"bands must be from 1 to {min(widths.values())}, got {count}; "
            f"the sensors of the selection have {widths}"
        )
    return count, np.dtype(dtypes.pop())


def _to_physical(stored: np.ndarray, scale: float, into: np.ndarray) -> None:
    np.multiply(stored, np.float32(1 / scale), out=into)
    # Fills are 0 and less, and most windows have neither: to find that out is a tenth of the work.
    if stored.dtype.kind == "i" and stored.min() <= 0:
        for fill in INTEGER_FILL:
            np.copyto(into, np.nan, where=stored == fill)


def _decoded(codec: str, frame: memoryview) -> np.ndarray:
    """Return the array that a compressed npy file holds."""
    unpack = lz4.frame.decompress if codec == "lz4" else zstandard.ZstdDecompressor().decompress
    return np.asarray(np.load(io.BytesIO(unpack(frame)), allow_pickle=False))
