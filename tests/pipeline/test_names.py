from pathlib import Path

import pytest

from pipeline.readers.names import scene_id_of_name


@pytest.mark.parametrize(
    ("name", "scene_id"),
    [
        ("EO1H1930242013205110KF_1T.ZIP", "EO1H1930242013205110KF_1T"),
        ("EO1H1930242013205110KF_1R.tgz", "EO1H1930242013205110KF_1R"),
        ("EO1H1480472016328110PZ_1gst.zip", "EO1H1480472016328110PZ_1GST"),
        (
            "GF5B_AHSI_E13.0_N52.4_20231031_011422_L10000412729.tar.gz",
            "GF5B_AHSI_E13p0_N52p4_20231031_011422_L10000412729",
        ),
        (
            "GF5_AHSI_W112.73_S29.83_20190122_003766_L10000036541",
            "GF5_AHSI_W112p73_S29p83_20190122_003766_L10000036541",
        ),
        ("EO1H0230322012194110P0_SGS_01_1T.zip", "EO1H0230322012194110P0_1T"),
        ("EO1H1680612008182110Kt_1T.zip", "EO1H1680612008182110Kt_1T"),
        ("eo1h1930242013205110kf_1t.tar.xz", "EO1H1930242013205110KF_1T"),
        ("EO1H1930242013205110KF", None),  # the entity alone does not say the level
        ("scene.zip", None),
    ],
)
def test_scene_ids_follow_from_names(name, scene_id):
    assert scene_id_of_name(Path("anywhere") / name) == scene_id
