import numpy as np

from pipeline.geolocation import lonlat, rpc_rowcol

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
    np.testing.assert_allclose(line + 0.5, rows, atol=0.002)
    np.testing.assert_allclose(sample + 0.5, cols, atol=0.002)


def test_rowcol_is_the_polynomials_at_any_height():
    rpc = curved_rpc()
    lon, lat = np.array([[12.95, 13.0, 13.04]]), np.array([[52.42, 52.4, 52.38]])
    row, col = rpc_rowcol(rpc, lon, lat, height=300)
    line, sample = written_out(rpc, lon, lat, 300)
    np.testing.assert_allclose([row, col], [line + 0.5, sample + 0.5], atol=1e-6)
