"""A masked autoencoder on tiles that it is not trained on: losses, and errors band by band."""

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hypersigma.data import Inputs, Scaling, tile_batches
from hypersigma.inputs import SensorInput
from hypersigma.loader import TileBatch
from hypersigma.mae import Mae, SpectralMae
from hypersigma.reconstruction import BandErrors, interpolation, nearest_visible
from hypersigma.train import generator
from storage.stream import ShardSet, Stream, order, select

logger = logging.getLogger(__name__)

SPLITS = ("val", "test")
"""Where the held-out loss is measured: the first of these that has a tile."""
SEED = 0
TILES = 64
ERRORS_FILE, FIGURE_FILE = "reconstruction.json", "band_errors.png"


@dataclass(frozen=True)
class HeldOut:
    """Fixed tiles with fixed windows, hidden in the same way each time."""

    split: str | None
    """None: there is no such tile."""
    batches: Callable[[], Iterator[TileBatch]]
    """Yields the same batches at every call."""

    @classmethod
    def of(
        cls, shards: ShardSet, most: int, stream: Callable[[np.ndarray, int, int], Stream]
    ) -> Self:
        """Choose tiles of the first split of a set that has any.

        Args:
            shards: An opened set.
            most: Tiles in a batch.
            stream: From index rows, tiles in a batch and a seed to what reads them.
        """
        split = next((name for name in SPLITS if shards.manifest["splits"][name]), None)
        if split is None:
            logger.warning("%s has no tile in %s: no held-out loss", shards.root, SPLITS)
            return cls(None, lambda: iter(()))
        rows = select(shards, split=split)
        rows = rows[order(len(rows), SEED, 0)[:TILES]]
        size = min(most, len(rows))

        def batches() -> Iterator[TileBatch]:
            endless = tile_batches(stream(rows, size, SEED), None, augment=False)
            return (batch for batch, _ in itertools.islice(endless, len(rows) // size))

        return cls(split, batches)

    def losses(
        self, losses: Callable[[TileBatch, torch.Generator], dict[str, Tensor]]
    ) -> dict[str, float]:
        """Return the means of losses over the batches, named `val_...`."""
        rng = generator(SEED)
        found = [losses(batch, rng) for batch in self.batches()]
        return {
            f"val_{name}": float(np.mean([one[name].item() for one in found]))
            for name in (found[0] if found else ())
        }


def held_out_errors(
    model: Mae,
    tables: Scaling,
    contracts: Mapping[str, SensorInput],
    batches: Iterable[TileBatch],
) -> dict[str, BandErrors]:
    """Return the errors of each sensor's bands: the model's, and those of knowing no model.

    `mean_spectrum` predicts the training split's mean, `nearest_visible` repeats the nearest
    visible band (of a spatial model: patch), `interpolated` draws a straight line between the
    visible bands on both sides (not of a spatial model). In units of the inputs. With `norm_pix`
    the model is told the mean and the deviation of what it predicts.
    """
    rng = generator(SEED)
    errors = {name: BandErrors.empty(contract.bands) for name, contract in contracts.items()}
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            inputs = tables.inputs(batch)
            predicted, counted_BCHW = predictions(model, inputs, rng)
            for n, (sensor, first) in enumerate(zip(batch.sensor, batch.band_start, strict=True)):
                of_one = {name: images[n] for name, images in predicted.items()}
                errors[sensor].add(of_one, inputs.x[n], counted_BCHW[n], int(first))
    return errors


def predictions(
    model: Mae, inputs: Inputs, rng: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Return images (B, C, H, W) by who predicted them, and which pixels were hidden and valid."""
    out = model(inputs.x, inputs.wavelength, valid_BHW=inputs.valid, generator=rng)
    values_BLV = model.target(inputs.x, inputs.valid)
    places_BLd = model.places(inputs.wavelength, out.mask)
    nearest_BLV = nearest_visible(values_BLV, out.mask, places_BLd)
    hidden_BLV = out.mask[..., None].expand_as(values_BLV)
    found = {
        "model": model.unpatchify(out.unscaled(out.prediction)),
        "mean_spectrum": inputs.mean[..., None, None].expand_as(inputs.x),
        "nearest_visible": model.unpatchify(nearest_BLV),
    }
    if isinstance(model, SpectralMae):
        line_BLV = interpolation(out.mask, places_BLd[..., 0]) @ values_BLV
        found["interpolated"] = model.unpatchify(line_BLV)
    return found, model.unpatchify(hidden_BLV) & inputs.valid[:, None]


def write_errors(
    run: Path, contracts: Mapping[str, SensorInput], errors: Mapping[str, BandErrors]
) -> dict[str, Any]:
    """Write `reconstruction.json` and `band_errors.png`; return the errors over all bands."""
    curves = _curves(contracts, errors)
    (run / ERRORS_FILE).write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    draw_errors(contracts, errors).savefig(run / FIGURE_FILE, dpi=110)
    seen = {sensor: errors[sensor] for sensor in curves}
    return {sensor: {n: one.total(n) for n in one.squares} for sensor, one in seen.items()}


def draw_errors(contracts: Mapping[str, SensorInput], errors: Mapping[str, BandErrors]) -> Figure:
    """Draw each sensor's errors over the wavelength."""
    curves = _curves(contracts, errors)
    figure = Figure(figsize=(9, 3.2 * len(curves)))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.16 / len(curves), hspace=0.45)
    axes = figure.subplots(len(curves), squeeze=False)
    for axis, (sensor, lines) in zip(axes[:, 0], curves.items(), strict=True):
        wavelength = np.array(lines["wavelength"], float)
        for name, line in lines.items():
            if name != "wavelength":
                axis.plot(wavelength, np.array(line, float), ".-", label=name.replace("_", " "))
        axis.set(xlabel="wavelength [nm]", ylabel="RMSE [input units]", title=sensor)
        axis.set_ylim(bottom=0)
        axis.legend()
    return figure


def _curves(
    contracts: Mapping[str, SensorInput], errors: Mapping[str, BandErrors]
) -> dict[str, dict[str, list[float | None]]]:
    """Return the errors of the sensors that were seen, band by band, and where the bands are."""
    return {
        sensor: {
            "wavelength": list(contracts[sensor].wavelengths[0]),
            **{name: [None if np.isnan(e) else float(e) for e in one.rmse(name)]
               for name in one.squares},
        }
        for sensor, one in errors.items() if one.squares
    }  # fmt: skip
