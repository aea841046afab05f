"""AHSI of GF-5, GF-5A and GF-5B: 150 VNIR and 180 SWIR bands."""

from pipeline.sensors.sensor import BandList, parse_bands, read_sensor

AHSI = read_sensor(
    "ahsi",
    "GF-5 / GF-5A / GF-5B AHSI",
    BandList(
        "ahsi",
        "hyperglobal",
        1,
        parse_bands("1-150"),
        sha256="616683d8c2ad2f5e8151d220825849e9d90135c8a0fae9992452f393c5776151",
        source="150 bands of HyperGlobal-450K (HyperSIGMA, arXiv:2406.11519) = VNIR: its index "
        "92 is 780 nm",
    ),
    BandList(
        "ahsi",
        "calibrated",
        1,
        parse_bands("1-145,151-191,202-244,264-326"),
        sha256="c9f7f01b66437a78fe01148fd4ceaacc0966dfb9a6e1a1bc00216c4a50e2fca1",
        source="derived, no published list: 330 less 5 VNIR bands that overlap SWIR, the H2O "
        "cores 1354-1430 and 1800-1952 nm, and SWIR beyond 2490 nm, where a GF-5B "
        "calibration file has gains <= 0 or far below their neighbours",
    ),
    BandList(
        "ahsi",
        "good",
        1,
        parse_bands("1-145,151-191,202-244,264-326"),
        sha256="c9f7f01b66437a78fe01148fd4ceaacc0966dfb9a6e1a1bc00216c4a50e2fca1",
        source="the same bands as calibrated: 330 less 5 VNIR bands that overlap SWIR, the H2O "
        "cores 1354-1430 and 1800-1952 nm, and SWIR beyond 2490 nm, where a GF-5B "
        "calibration file has gains <= 0 or far below their neighbours",
    ),
    # The largest number of 12 bit. AHSI's documents state none; with the delivered gains it is an
    # albedo of about 1.
    ceiling=4095,
)
