import numpy as np
import pytest
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from pipeline import rpc as polynomials
from pipeline.geolocation import lonlat

OFFSETS = {"line_off": 95.0, "samp_off": 127.0, "lat_off": 52.4, "long_off": 13.0,
           "height_off": 40.0, "line_scale": 96.0, "samp_scale": 128.0, "lat_scale": 0.03,
           "long_scale": 0.06, "height_scale": 500.0}  # fmt: skip


def curved_rpc(**changes):
    """An RPC with terms of each kind, in the order of RPC00B."""
    rng = np.random.default_rng(4)
    small = {name: 0.002 * rng.standard_normal(20) for name in
             ("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff")}  # fmt: skip
    small["line_num_coeff"][:3] = [0.001, 0.2, -0.95]
    small["samp_num_coeff"][:3] = [-0.002, 0.93, 0.15]
    small["line_den_coeff"][0] = small["samp_den_coeff"][0] = 1
    return {**OFFSETS, **{name: values.tolist() for name, values in small.items()}, **changes}


def written_out(rpc, lon, lat, height):
    """Line and sample by the polynomials of RPC00B (NGA, STDI-0002), written out."""
    p = (lat - rpc["lat_off"]) / rpc["lat_scale"]
    v = (lon - rpc["long_off"]) / rpc["long_scale"]
    h = (height - rpc["height_off"]) / rpc["height_scale"]
    terms = [1 + 0 * p, v, p, h, v * p, v * h, p * h, v**2, p**2, h**2, p * v * h, v**3, v * p**2,
             v * h**2, v**2 * p, p**3, p * h**2, v**2 * h, p**2 * h, h**3]  # fmt: skip
    value = {name: sum(c * t for c, t in zip(rpc[f"{name}_coeff"], terms, strict=True))
             for name in ("line_num", "line_den", "samp_num", "samp_den")}  # fmt: skip
    line = value["line_num"] / value["line_den"] * rpc["line_scale"] + rpc["line_off"]
    sample = value["samp_num"] / value["samp_den"] * rpc["samp_scale"] + rpc["samp_off"]
    return line, sample


def test_a_place_by_rpc_is_where_its_polynomials_have_it():
    rpc = curved_rpc()
    rows, cols = np.meshgrid([0.5, 40, 100.25, 191.5], [0.5, 77, 255.5], indexing="ij")
    lon, lat = lonlat({"rpc": rpc}, (192, 256), rows, cols)
    line, sample = written_out(rpc, lon, lat, rpc["height_off"])
    # RPC count from the centre of the first pixel, where `lonlat` has 0.5.
    np.testing.assert_allclose(line + 0.5, rows, atol=0.001)
    np.testing.assert_allclose(sample + 0.5, cols, atol=0.001)


def test_rowcol_is_the_polynomials_at_any_height():
    rpc = curved_rpc()
    lon, lat = np.array([[12.95, 13.0, 13.04]]), np.array([[52.42, 52.4, 52.38]])
    row, col = polynomials.rowcol(rpc, lon, lat, 300)
    line, sample = written_out(rpc, lon, lat, 300)
    np.testing.assert_allclose([row, col], [line + 0.5, sample + 0.5], atol=1e-6)


def test_gdal_has_the_same_places_within_its_own_tenth_of_a_pixel():
    rpc = curved_rpc()
    rows, cols = [0.5, 40.0, 191.5], [255.5, 77.0, 3.0]
    with RPCTransformer(RPC(**rpc)) as transformer:
        lon, lat = transformer.xy(rows, cols, zs=[40.0] * 3, offset="ul")
    row, col = polynomials.rowcol(rpc, np.array(lon), np.array(lat), 40)
    np.testing.assert_allclose([row, col], [rows, cols], atol=0.1)


def test_places_beyond_the_date_line_are_found():
    rpc = curved_rpc(long_off=179.99)
    rows, cols = np.array([20.0, 96, 150]), np.array([20.0, 200, 250])
    lon, lat = lonlat({"rpc": rpc}, (192, 256), rows, cols)
    assert lon[0] > 179.9
    assert lon[2] < -179.9
    row, col = polynomials.rowcol(rpc, lon, lat, 40)
    np.testing.assert_allclose([row, col], [rows, cols], atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [{"lat_scale": 0.0}, {"samp_num_coeff": [0.0] * 20}, {"line_den_coeff": [0.0] * 20},
     {"line_scale": 1e308}, {"lat_off": 1e308}],
)  # fmt: skip
def test_an_rpc_that_leads_nowhere_gives_no_place(change):
    lon, lat = lonlat({"rpc": curved_rpc(**change)}, (192, 256), [10.0, 20], [30.0, 200])
    assert np.isnan(lon).all()
    assert np.isnan(lat).all()
