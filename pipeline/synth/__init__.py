"""Synthetic raw products with known truth; shares no code with the readers.

`write_products` writes raw Hyperion and AHSI products, laid out byte for byte as delivered, that
all show one invented landscape (`world`), and beside them what is true of it:

- `truth/labels/<scene_id>.npy`: land-cover class (y, x) uint8 on the product's own grid, 1..6, 0
  where the product has no data; `truth/labels/classes.json`: the names of the classes 1..6.
- `truth/<scene_id>.npz`: per band (band) `band`, `wavelength`, `fwhm` [nm], `gain`, `offset`,
  `live`, `irradiance`, `transmittance`, `path`; `cosine` = sin(sun elevation) / (pi d^2); per
  spectrum `endmember` (name), `endmember_class`, `reflectance` (endmember, band) [1]; per pixel
  `abundance` (endmember, y, x), `lon`, `lat` [deg], `valid`; `dead` (detector, 2) band and column.
- `truth/scenes.json`: the seed and all scenes with place, date, sun and file.

True reflectance (band, y, x) is the sum over endmembers of `reflectance` times `abundance`;
radiance [W m-2 sr-1 um-1] is `cosine * irradiance * transmittance * reflectance + path`, and where
`live`, DN = (radiance - offset) / gain up to stripes, noise and rounding (AHSI: at least 1, since 0
means no data, and at most 4095). In L1R the wavelengths of the columns differ a little (see its
`.AUX`); the truth is that of the nominal ones.

All times are UTC. Same arguments, same bytes (with the same libraries).
"""

from pipeline.synth.products import write_products

__all__ = ["write_products"]
