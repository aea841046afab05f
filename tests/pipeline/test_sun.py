from datetime import datetime

import pytest

from pipeline.sun import sun_zenith


def test_agrees_with_the_worked_example_of_nrel():
    # Reda & Andreas, NREL/TP-560-34302, table A5.1: elevation 39.872046 deg without refraction
    time = datetime.fromisoformat("2003-10-17T12:30:30-07:00")
    assert sun_zenith(time, -105.1786, 39.742476) == pytest.approx(90 - 39.872046, abs=0.01)


@pytest.mark.parametrize("lon", [-150.0, 0.0, 112.5])
def test_is_overhead_at_the_equator_at_noon_of_an_equinox(lon):
    # 20 March 2020, 03:50 UTC; true noon is 7.4 min after noon of the mean sun
    noon = datetime.fromisoformat("2020-03-20T12:07:24+00:00").timestamp() - lon * 240
    time = datetime.fromtimestamp(noon, tz=datetime.fromisoformat("2020-01-01T00Z").tzinfo)
    assert sun_zenith(time, lon, 0.0) < 0.4
