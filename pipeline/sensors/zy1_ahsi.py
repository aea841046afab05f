"""AHSI of ZY1-02D and ZY1-02E: 76 VNIR and 90 SWIR bands."""

from pipeline.sensors.sensor import BandList, parse_bands, read_sensor

ZY1_AHSI = read_sensor(
    "zy1_ahsi",
    "ZY1-02D / ZY1-02E AHSI",
    BandList(
        "zy1_ahsi",
        "calibrated",
        1,
        parse_bands("1-72,77-97,102-123,133-164"),
        sha256="80c283cb13f79a61a2e45f8db796079ff0dc8a78d1aa6ff496d04232957b2a0c",
        source="derived, no published list: 166 less 4 VNIR bands that overlap SWIR, and the "
        "windows that the list of GF-5B AHSI leaves out: 1354-1430, 1800-1952 and beyond "
        "2490 nm",
    ),
    # As of AHSI on GF-5.
    ceiling=4095,
)
