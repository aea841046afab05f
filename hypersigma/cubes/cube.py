"""An image of many bands in memory, and what is known of it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Numbers = NDArray[Any]


@dataclass(frozen=True)
class Cube:
    """A whole image; small enough to be held in memory."""

    x_HWC: Numbers
    """Rows, columns, bands, in the file's own numbers and dtype; physical = stored / scale."""
    wavelength: NDArray[np.float64] | None
    """Band centres (C) [nm]; None: not known."""
    valid_HW: NDArray[np.bool_]
    """Where there is a measurement: in every band, and not 0 in all of them."""
    crs: str | None = None
    """Of the map grid, as WKT or EPSG:code; None: sensor geometry."""
    transform: tuple[float, ...] | None = None
    """Column, row -> easting, northing: the six numbers of an affine."""
    scale: float = 1.0
    """Stored number of a physical 1, such as a reflectance."""
    nodata: float | None = None
    """The stored number of no measurement."""
    units: str | None = None
    """Of physical values, as CF writes them; None: not known."""
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What was taken: file, key, axes, sha256, bands left out."""

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.x_HWC.shape[0], self.x_HWC.shape[1]

    @property
    def bands(self) -> int:
        """How many bands there are."""
        return int(self.x_HWC.shape[2])

    def physical_CHW(  # noqa: N802  # shape letters
        self, dtype: type[np.floating] = np.float32
    ) -> NDArray[Any]:
        """Return the image (C, H, W) in physical units; pixels without a measurement are 0."""
        x_HWC = np.where(self.valid_HW[:, :, None], self.x_HWC, 0).astype(dtype) / dtype(self.scale)
        return np.ascontiguousarray(x_HWC.transpose(2, 0, 1))

    def without_bands(self, rows: list[int]) -> "Cube":
        """Return the cube without some bands, by places from 0; the source counts them from 1.

        Raises:
            ValueError: A place that is no band's.
        """
        if wrong := [row for row in rows if not 0 <= row < self.bands]:
            raise ValueError(
                f"{self.name}: expected bands 0..{self.bands - 1} to leave out, got {wrong}"
            )
        keep = np.setdiff1d(np.arange(self.bands), rows)
        x_HWC = self.x_HWC[:, :, keep]
        return dataclasses.replace(
            self,
            x_HWC=x_HWC,
            wavelength=None if self.wavelength is None else self.wavelength[keep],
            valid_HW=measured(x_HWC, self.nodata),
            source={**self.source, "bands_left_out": sorted({row + 1 for row in rows})},
        )

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.source.get("file", "the cube"))


def samples(x: Numbers, nodata: float | None) -> NDArray[np.bool_]:
    """Return which numbers of an image are finite and not `nodata`.

    A `nodata` of 0 counts only where all bands have it: one dark band may well measure 0.
    """
    finite = np.isfinite(x)
    if nodata is not None and nodata != 0 and not np.isnan(nodata):
        finite &= x != nodata
    return finite


def measured(x_HWC: Numbers, nodata: float | None = None) -> NDArray[np.bool_]:
    """Return where an image holds a measurement (H, W).

    A band that has one nowhere says nothing of a pixel; `check_bands` refuses such bands.
    """
    known_HWC = samples(x_HWC, nodata)
    known_C = known_HWC.any((0, 1))
    valid_HW = known_HWC[:, :, known_C].all(2) & (known_HWC & (x_HWC != 0)).any(2)
    return np.asarray(valid_HW & bool(known_C.any()))


def check_bands(cube: Cube) -> None:
    """Refuse bands without any measurement, and images without any valid pixel.

    Raises:
        ValueError: There are such bands, or there is no pixel.
    """
    known_C = samples(cube.x_HWC, cube.nodata).any((0, 1))
    if not known_C.all():
        # Numbers are those of the file, and name what is left out already, too.
        left = np.array(cube.source.get("bands_left_out", []), int)
        stored = np.setdiff1d(np.arange(1, cube.bands + len(left) + 1), left)
        out = np.union1d(left, stored[~known_C])
        runs = np.split(out, np.flatnonzero(np.diff(out) > 1) + 1)
        raise ValueError(
            f"{cube.name}: expected measurements in all {cube.bands} bands, got none in "
            f"{int((~known_C).sum())} of them; say leave_out: "
            f"{[[int(run[0]), int(run[-1])] for run in runs]}"
        )
    if not cube.valid_HW.any():
        raise ValueError(
            f"{cube.name}: expected pixels with a value in every band, got none of "
            f"{cube.valid_HW.size}; leave out the bands that have gaps"
        )


def in_nm(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return band centres [nm] that a file tells in nm, or in um: all are below 100 then."""
    return centres * 1000 if centres.max() < 100 else centres


def new_cube(
    x_HWC: Numbers, *, wavelength: Any = None, nodata: float | None = None, **known: Any
) -> Cube:
    """Return a cube of an array, with its valid pixels found and its wavelengths in nm.

    Args:
        x_HWC: Rows, columns, bands.
        wavelength: Band centres [nm], or [um] if all are below 100; None: not known.
        nodata: The stored number of no measurement.
        known: Other fields of `Cube`.

    Raises:
        ValueError: Not three axes, no numbers, or not a wavelength a band.
    """
    if x_HWC.ndim != 3 or x_HWC.dtype.kind not in "iuf":
        raise ValueError(
            f"expected numbers (rows, columns, bands), got {x_HWC.dtype} {x_HWC.shape}"
        )
    centres = None
    if wavelength is not None:
        centres = np.asarray(wavelength, np.float64).ravel()
        if len(centres) != x_HWC.shape[2]:
            raise ValueError(
                f"expected a wavelength for each of {x_HWC.shape[2]} bands, got {len(centres)}"
            )
        centres = in_nm(centres)
    return Cube(x_HWC, centres, measured(x_HWC, nodata), nodata=nodata, **known)
