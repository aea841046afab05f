"""EO-1 Hyperion: 242 bands, 198 of them calibrated."""

from pipeline.sensors.sensor import BandList, Floats, parse_bands, read_sensor

HYPERION = read_sensor(
    "hyperion",
    "EO-1 Hyperion",
    BandList(
        "hyperion",
        "hyperglobal",
        1,
        parse_bands("8-57,77-120,127-166,181-221"),
        sha256="34396a624f686076b4c9733fb044658c58a3dbcd48c2891ad609ad3896b5861e",
        source="band names B008..B221 of the UniverSat configuration for HyperGlobal-450K "
        "(HyperSIGMA, arXiv:2406.11519); the HyperSIGMA repository states no list",
    ),
    BandList(
        "hyperion",
        "calibrated",
        1,
        parse_bands("8-57,77-224"),
        sha256="afd82cb45031237cb20aad170f61eb4579992d068393d4d9bc70fed7e3cfa41c",
        source="USGS Hyperion spectral coverage table (2014-04-25) and Earth Engine catalogue "
        "EO1/HYPERION: all other bands are not calibrated and zero",
    ),
    BandList(
        "hyperion",
        "unique_196",
        1,
        parse_bands("8-55,77-224"),
        sha256="03f08ff287136ba8adfca399df91cb7df5d2d2f313833c1da731daa2dd1049d9",
        source="calibrated less the VNIR bands 56-57 that overlap SWIR: the stitching rule of "
        "the hGRS Hyperion driver, which keeps VNIR below 912.45 nm",
    ),
    BandList(
        "hyperion",
        "unique_196_keep_vnir",
        1,
        parse_bands("8-57,79-224"),
        sha256="b841f71a71c28316963f4d96bd8a15150d4fe3e27e3aa935456e1d684cbd9f2b",
        source="calibrated less the SWIR bands 77-78 that overlap VNIR; usually credited to Beck "
        "2003, EO-1 User Guide",
        doubt="bands from memory, only their count was checked; the source was not read",
    ),
    BandList(
        "hyperion",
        "surehyp_195",
        1,
        parse_bands("8-56,78-223"),
        sha256="c58e9a77c538065fe76fd07b908e82469f2765614c2ee36e9752508fb747dfa7",
        source="slices 7:56 and 77:223 of SUREHYP's preprocess.separating "
        "(github.com/tmiraglio/SUREHYP)",
    ),
    BandList(
        "hyperion",
        "tutorials_176",
        1,
        parse_bands("8-57,79-120,128-166,179-223"),
        sha256="dc6f5c0d0a4b4e922661c3971a4159fa8dcfe3ab48e13656f8ec2b78331c48c6",
        source="common in Chinese Hyperion tutorials and papers, often credited to Tan 2005",
        doubt="bands from memory, only their count was checked; the source was not read",
    ),
    BandList(
        "hyperion",
        "datt_155",
        1,
        parse_bands("8-57,79,83-119,133-164,183-184,188-220"),
        sha256="f2e30bffd22ef2b8b2a0b2a2a34773e0845b7275d49fd0facf31410d6610a546",
        source="usually credited to Datt et al. 2003, IEEE TGRS 41(6), 1246",
        doubt="bands from memory, only their count was checked; the source was not read",
    ),
    BandList(
        "hyperion",
        "botswana_145",
        1,
        parse_bands("10-55,82-97,102-119,134-164,187-220"),
        sha256="23cfa33555154618c2a972afb1832f5007cd1eedc4d6207fc74e8512f4389b50",
        source="description of the Botswana scene (Okavango, 2001-05-31), Hyperspectral Remote "
        "Sensing Scenes, ehu.eus",
    ),
    # The largest int16: the products' documents name no other.
    ceiling=32767,
)

HYPERION_BANDS = len(HYPERION.band)


def hyperion_bands() -> dict[str, Floats]:
    """Return the USGS band table: `wavelength`, `fwhm` [nm], each (242,), band 1 first."""
    return {"wavelength": HYPERION.wavelength, "fwhm": HYPERION.fwhm}


def hyperion_detectors() -> list[str]:
    """Return "VNIR" for bands 1-70 and "SWIR" for 71-242."""
    return list(HYPERION.detector)
