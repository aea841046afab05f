"""Names and shapes of every published model, against the listings."""

import pytest
import torch

from hypersigma import published


def test_every_listing_has_a_model(conformance):
    assert {path.stem for path in (conformance / "keys").iterdir()} == set(published.MODELS)


@pytest.mark.parametrize("name", published.MODELS)
def test_names_and_shapes(conformance, name):
    with torch.device("meta"):
        model = published.build(name)
    lines = (conformance / "keys" / f"{name}.txt").read_text().splitlines()
    ours = [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]
    assert sorted(ours) == sorted(lines)
