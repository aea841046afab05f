import json

import pytest
from typer.testing import CliRunner

from hypersigma.__main__ import app
from tests.hypersigma.classical.real import DATA


def test_a_made_scene_is_told():
    result = CliRunner().invoke(app, ["scene", "synthetic_change", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["cube"]["rows"], told["cube"]["bands"]) == (64, 60)
    assert told["other"]["valid"] == 1
    assert sum(told["labels"].values()) == 64 * 64
    assert list(told["labels"]) == ["not labelled", "unchanged", "changed"]
    assert sum(told["mean_abundances"].values()) == pytest.approx(1)


@pytest.mark.skipif(DATA is None, reason="needs the measured scenes")
def test_a_measured_scene_is_told():
    result = CliRunner().invoke(app, ["scene", "salton_sea", str(DATA)])
    assert result.exit_code == 0, result.output
    for line in ("  bands 204", "    key I", "    axes HWC", "  first_nm 365.9137"):
        assert f"\n{line}\n" in result.stdout, line
    assert "bands_left_out 108, 109" in result.stdout


def test_a_scene_that_is_not_here_is_told(tmp_path):
    result = CliRunner().invoke(app, ["scene", "indian_pines", str(tmp_path)])
    assert result.exit_code == 1
    assert "get it: http://www.ehu.eus" in result.output
    assert CliRunner().invoke(app, ["scene", "no_such"]).exit_code == 2
