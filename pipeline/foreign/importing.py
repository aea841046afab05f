"""Foreign tiles to a set of shards."""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.foreign.arrays import UnfitError, stored
from pipeline.foreign.listing import Sources, open_sources
from pipeline.foreign.names import plain_name
from pipeline.foreign.plan import Naming, list_tiles
from pipeline.foreign.tiles import ForeignTiles
from pipeline.sensors import SENSORS, BandList, band_list
from storage.places import Folder, place_of
from storage.schema import SchemaError
from storage.shardimports import Foreign, write_import
from storage.shardoptions import ShardOptions
from storage.shardtiles import Rejected
from storage.shardwriter import Progress
from storage.spectra import Spectra

REFERENCE_SCALE = 4000.0
"""Of the reference data set's integers. Source: HyperSIGMA, arXiv:2406.11519, and its code."""
_PROBED = 64
"""Tiles of a sensor that are read to tell what all are."""


@dataclass(frozen=True)
class ImportOptions:
    """What inputs are, where they do not say so themselves."""

    key: str = "img"
    """Of the variable in MATLAB files."""
    bands: str = "hyperglobal"
    """The named list that tiles have the bands of."""
    scale: float | None = None
    """value = stored / scale; None: `REFERENCE_SCALE` for integers, refused for floats."""
    dtype: Literal["int16", "float32"] | None = None
    """None: int16 if most of a sensor's tiles that are looked at are whole numbers, or float32."""
    member: str | None = None
    """Extension of the array of a tar file's samples; None: the only `.npy` or `.mat`."""
    dataset: str | None = None
    """None: the source's name."""
    naming: Naming = field(default_factory=Naming)
    nodata: float | None = None
    """A value that stands for no measurement, beside 0 and NaN."""


def import_tiles(
    given: list[str],
    out: Path | str,
    *,
    options: ImportOptions | None = None,
    shards: ShardOptions | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    told: Callable[[Rejected], None] | None = None,
) -> dict[str, Any]:
    """Write shards of tiles in folders and tar files; see `storage.shardimports.write_import`.

    An input that cannot be a tile is left out, named in the set's `rejected.csv` and counted. An
    error of the disk ends the run, which goes on when it is started again.

    Args:
        given: Folders, `.tar`, `.mat` or `.npy` files; `{000..009}` stands for numbers.
        out: A folder or `s3://bucket/prefix`.
        options: What inputs are.
        shards: How shards are made.
        jobs: Processes that each make a shard at a time.
        progress: Called with the inputs done so far and their total.
        told: Called with each input that is rejected; what it raises ends the run.

    Returns:
        The manifest.

    Raises:
        SchemaError: No input can be taken, those that were looked at first are not what the
            options say, or `out` is in a folder that is looked through.
        KeyError: No such sensor or list of bands.
    """
    options = options or ImportOptions()
    shards = shards or ShardOptions()
    if options.naming.sensor is not None:
        band_list(options.naming.sensor, options.bands)
    sources = open_sources(given, options.member)
    _refuse_inside(out, sources)
    table, rejected = list_tiles(sources, options.naming)
    if not len(table):
        raise SchemaError(_nothing(given, rejected, sources.ignored))
    present = sorted(np.unique(np.asarray(table["sensor"].combine_chunks().indices)).tolist())
    names = [list(SENSORS)[code] for code in present]
    lists = {name: band_list(name, options.bands) for name in names}
    counts = {name: len(each.bands) for name, each in lists.items()}
    tiles = ForeignTiles(sources.root, options.key, counts, {}, options.nodata)
    dtypes = {name: _dtype(tiles, table, name, options, lists[name]) for name in names}
    scales = {name: _scale(name, dtypes[name], options.scale) for name in names}
    recipe = _recipe(options, lists, dtypes, scales)
    foreign = Foreign(
        dataset=options.dataset or plain_name(Path(given[0]).resolve().stem),
        table=table,
        spectra=_spectra(lists, dtypes, scales),
        recipe=recipe,
        recipe_hash=hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        code_version=importlib.metadata.version("hypersigma-pipeline"),
        rejected=rejected,
        ignored=dict(sources.ignored),
    )
    return write_import(
        replace(tiles, dtypes=dtypes), foreign, out, options=shards, jobs=jobs,
        progress=progress, told=told,
    )  # fmt: skip


def _refuse_inside(out: Path | str, sources: Sources) -> None:
    """Refuse to write where a run that goes on would take its own shards for inputs."""
    place = place_of(out)
    if not isinstance(place, Folder):
        return
    folder = place.root.resolve()
    for path in sources.paths:
        if path == folder or path in folder.parents:
            raise SchemaError(
                f"{out} must not lie in what is imported, got {path}; name a folder elsewhere, or "
                "the folders in it that hold tiles"
            )


def _dtype(
    tiles: ForeignTiles, table: pa.Table, sensor: str, options: ImportOptions, bands: BandList
) -> str:
    """Return what a sensor's tiles are stored as, told from some of them, from first to last.

    Raises:
        SchemaError: None of these has the sensor's bands.
    """
    code = list(SENSORS).index(sensor)
    rows = np.flatnonzero(np.asarray(table["sensor"].combine_chunks().indices) == code)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, _PROBED).astype(int))]
    whole, unfit = [], []
    for record in table.take(chosen).to_pylist():
        try:
            values = tiles.array(record)
        except UnfitError as error:
            unfit.append(error)
            continue
        whole.append(_is_whole(values))
    if not whole:
        reasons = Counter(error.reason for error in unfit)
        reason = reasons.most_common(1)[0][0]
        first = next(error for error in unfit if error.reason == reason)
        have = ", ".join(f"{n} ({len(each.bands)})" for n, each in SENSORS[sensor].lists.items())
        raise SchemaError(
            f"none of {len(unfit)} {sensor} tiles that were looked at can be taken, for "
            f"{_counted(reasons)}. {first.detail[:1].upper()}{first.detail[1:]}. {sensor} tiles "
            f"must be (band, 64, 64) and have the {len(bands.bands)} bands of the list "
            f"{bands.name}; name another list with --bands: {have}; or another variable with --key"
        )
    return options.dtype or ("int16" if 2 * sum(whole) >= len(whole) else "float32")


def _is_whole(values: np.ndarray) -> bool:
    try:
        stored(values, "int16")
    except UnfitError as error:
        return error.reason == "range"  # named when it is left out; the others may fit
    return True


def _scale(sensor: str, dtype: str, scale: float | None) -> float:
    if scale is None and dtype == "float32":
        raise SchemaError(
            f"{sensor} tiles are floats, and nothing says whether they are still to be divided: "
            "give --scale 1 for reflectance as it is, or --scale 4000 as for the reference data"
        )
    return REFERENCE_SCALE if scale is None else scale


def _spectra(
    lists: dict[str, BandList], dtypes: dict[str, str], scales: dict[str, float]
) -> Spectra:
    sensors, spectral = {}, []
    for name, each in lists.items():
        known = SENSORS[name]
        place = {band: at for at, band in enumerate(known.band.tolist())}
        at = [place[band] for band in each.bands]
        bands = {"band": list(each.bands), "wavelength": known.wavelength[at].tolist(),
                 "fwhm": known.fwhm[at].tolist()}  # fmt: skip
        if not np.isfinite(bands["wavelength"]).all():
            raise SchemaError(
                f"{name} has no wavelengths but those in each product, so its tiles cannot be "
                "imported; build them from the products"
            )
        sensors[name] = {**bands, "dtype": dtypes[name], "scale": scales[name], "units": "DN",
                         "nodata": 0}  # fmt: skip
        spectral.append({"sensor": name, **bands})
    return Spectra(sensors, spectral, {})


def _recipe(
    options: ImportOptions,
    lists: dict[str, BandList],
    dtypes: dict[str, str],
    scales: dict[str, float],
) -> dict[str, Any]:
    """Return all that tiles follow from, beside the inputs' bytes."""
    naming = options.naming
    return {
        "key": options.key,
        "member": options.member,
        **({} if options.nodata is None else {"nodata": options.nodata}),
        "sensor": naming.sensor,
        "name": None if naming.pattern is None else naming.pattern.pattern,
        "split": naming.shares,
        "split_by": "scene names; places are unknown",
        "sensors": {
            name: {"bands": each.name, "version": each.version, "sha256": each.sha256,
                   "dtype": dtypes[name], "scale": scales[name]}
            for name, each in lists.items()
        },
    }  # fmt: skip


def _nothing(given: list[str], rejected: list[Rejected], ignored: Counter[str]) -> str:
    """Return in words why there is no tile among the inputs."""
    text = f"{', '.join(given)}: expected .mat or .npy files, or .tar files with such members"
    if rejected:
        first = rejected[0]
        reasons = Counter(each.reason for each in rejected)
        text += f"; none of {len(rejected)} can be taken, for {_counted(reasons)}"
        text += f". {first.source}: {first.detail}"
        if first.reason == "sensor":
            text += "; or say with --sensor what they are of"
    if ignored:
        text += f"; got {_counted(ignored)}; unpack archives first"
    return text


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(found.items()))
