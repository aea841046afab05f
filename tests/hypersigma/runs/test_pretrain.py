import json

import pytest

from hypersigma.pretrain import pretrain


@pytest.mark.parametrize("kind", ["spatial", "spectral"])
def test_runs(pretraining, kind):
    config = pretraining(kind=kind)
    summary = pretrain(config)
    print(json.dumps(summary, indent=1))
    print((config.run / "metrics.jsonl").read_text())
