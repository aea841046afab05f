"""The spectral contract: which bands a model was trained on, and how stored numbers become inputs.

It is made from the shards' manifest, kept in every checkpoint, and checked before other data meet
the same weights. Shape letters: B batch, C bands, H rows, W columns.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.schema import INTEGER_FILL, SchemaError

WAVELENGTH_TOLERANCE_NM = 1.0


@dataclass(frozen=True)
class SensorInput:
    """One sensor's bands and the numbers that turn its stored values into model inputs.

    input = (stored / scale - mean) / std; a sample that is no measurement is 0.
    """

    sensor: str
    band: tuple[int, ...]
    wavelengths: tuple[tuple[float, ...], ...]
    """One tuple of band centres [nm] for each platform that carried the sensor."""
    fwhm: tuple[float, ...]
    """Band widths [nm]."""
    scale: float
    """Physical value = stored / scale."""
    units: str
    mean: tuple[float, ...]
    """Of the training split's valid pixels per band, in physical units."""
    std: tuple[float, ...]
    """Of the same pixels per band, in physical units; 1 where a band does not vary."""
    standardized: bool
    """False: inputs are stored / scale alone, as published."""

    @property
    def bands(self) -> int:
        """How many bands the sensor has here."""
        return len(self.band)

    @property
    def centres(self) -> tuple[float, ...]:
        """Band centres [nm], the mean of the platforms."""
        return tuple(np.mean(self.wavelengths, axis=0).tolist())

    @property
    def shift(self) -> tuple[float, ...]:
        """What is taken off each band's physical values."""
        return self.mean if self.standardized else (0.0,) * self.bands

    @property
    def spread(self) -> tuple[float, ...]:
        """What each band's physical values are then divided by."""
        return self.std if self.standardized else (1.0,) * self.bands

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `state.json`."""
        return dataclasses.asdict(self)


def from_manifest(manifest: Mapping[str, Any], *, standardize: bool) -> dict[str, SensorInput]:
    """Read the spectral contract of every sensor in a shard manifest.

    Args:
        manifest: A shard set's manifest.
        standardize: Whether inputs are standardised per band by the training split's mean and
            standard deviation, or only divided by `scale`, as published.
    """
    return {
        sensor: _sensor_input(manifest, sensor, standardize=standardize)
        for sensor in manifest["sensors"]
    }


def from_json(plain: Mapping[str, Any]) -> dict[str, SensorInput]:
    """Read the spectral contracts that `to_json` wrote into a checkpoint."""
    return {
        sensor: SensorInput(
            sensor=sensor,
            band=tuple(entry["band"]),
            wavelengths=tuple(tuple(one) for one in entry["wavelengths"]),
            fwhm=tuple(entry["fwhm"]),
            scale=entry["scale"],
            units=entry["units"],
            mean=tuple(entry["mean"]),
            std=tuple(entry["std"]),
            standardized=entry["standardized"],
        )
        for sensor, entry in plain.items()
    }


def check_wavelengths(
    wavelengths: Sequence[Sequence[float]], contract: SensorInput, *, where: str
) -> None:
    """Refuse data whose bands are not those that a model was trained on.

    Args:
        wavelengths: Band centres [nm] of the data, one list for each platform in it.
        contract: What the checkpoint says of this sensor.
        where: What the data are, for the error message.

    Raises:
        SchemaError: Another number of bands, or a band more than 1 nm from the trained one.
    """
    trained = [np.asarray(one) for one in contract.wavelengths]
    for found in wavelengths:
        if len(found) != contract.bands:
            raise SchemaError(
                f"{where}: expected the {contract.bands} {contract.sensor} bands of the "
                f"checkpoint, got {len(found)}; use data made with the checkpoint's recipe"
            )
        offsets = [np.abs(np.asarray(found) - centre) for centre in trained]
        nearest = min(offsets, key=lambda offset: float(offset.max()))
        worst = int(nearest.argmax())
        if nearest[worst] > WAVELENGTH_TOLERANCE_NM:
            raise SchemaError(
                f"{where}: {contract.sensor} band {contract.band[worst]} is at "
                f"{found[worst]:.2f} nm, {nearest[worst]:.2f} nm from the checkpoint's "
                f"(at most {WAVELENGTH_TOLERANCE_NM} nm allowed); use data of the same bands"
            )


def check_scale(scale: float, units: str, contract: SensorInput, *, where: str) -> None:
    """Refuse data in other units than those a model was trained on.

    Raises:
        SchemaError: The units or the scale differ.
    """
    if (scale, units) != (contract.scale, contract.units):
        raise SchemaError(
            f"{where}: expected values in {contract.units!r} stored x {contract.scale:g}, as the "
            f"checkpoint was trained on, got {units!r} stored x {scale:g}; "
            "use data made with the checkpoint's recipe"
        )


def standardize(
    stored_BCHW: Tensor, shift_BC: Tensor, spread_BC: Tensor, scale_B: Tensor
) -> Tensor:
    """Turn stored numbers into float32 inputs; a sample that is no measurement becomes 0.

    Args:
        stored_BCHW: As in the shard: float (NaN is no measurement) or integer (0 and -32767).
        shift_BC: What is taken off each band, in physical units.
        spread_BC: What each band is then divided by, in physical units.
        scale_B: Physical value = stored / scale.
    """
    valid_BCHW = measured(stored_BCHW)
    shift, spread = shift_BC[:, :, None, None], spread_BC[:, :, None, None]
    x_BCHW = (stored_BCHW.float() / scale_B[:, None, None, None] - shift) / spread
    return torch.where(valid_BCHW, x_BCHW, 0.0)


def measured(stored: Tensor) -> Tensor:
    """Say which stored numbers are measurements, as bool of the same shape."""
    if stored.is_floating_point():
        return stored.isfinite()
    return (stored != INTEGER_FILL[0]) & (stored != INTEGER_FILL[1])


def _sensor_input(manifest: Mapping[str, Any], sensor: str, *, standardize: bool) -> SensorInput:
    entry = manifest["sensors"][sensor]
    statistics = entry["statistics"]
    return SensorInput(
        sensor=sensor,
        band=tuple(entry["band"]),
        wavelengths=tuple(
            tuple(one["wavelength"]) for one in manifest["spectral"] if one["sensor"] == sensor
        ),
        fwhm=tuple(entry["fwhm"]),
        scale=float(entry["scale"]),
        units=str(entry["units"]),
        # A band that was never measured (no gain, all fill) has no mean: its inputs are 0 anyway.
        mean=tuple(_finite(value, 0.0) for value in statistics["mean"]),
        std=tuple(_finite(value, 0.0) or 1.0 for value in statistics["std"]),
        standardized=standardize,
    )


def _finite(value: float | None, otherwise: float) -> float:
    return float(value) if value is not None and math.isfinite(value) else otherwise
