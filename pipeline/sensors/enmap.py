"""EnMAP: 224 bands, whose wavelengths each product says."""

import numpy as np

from pipeline.sensors.sensor import BandList, Sensor, parse_bands

BANDS = 224
_UNKNOWN = np.full(BANDS, np.nan)

ENMAP = Sensor(
    "enmap",
    "EnMAP",
    band=np.arange(1, BANDS + 1, dtype="int32"),
    detector=(),
    wavelength=_UNKNOWN,
    fwhm=_UNKNOWN,
    gain=_UNKNOWN,
    irradiance={},
    lists={
        "calibrated": BandList(
            "enmap",
            "calibrated",
            1,
            parse_bands("1-224"),
            sha256="aa46210bb8b785c147e230177ed023b5c7ce1f50ca35880f01d6eb413ec911a2",
            source="all bands of an L2A product (EnMAP-Box, example data: 224 bands, 6 of them "
            "left empty by the supplier, which are nodata)",
        ),
    },
)
