"""Commands as a user runs them."""

import json

from typer.testing import CliRunner

from hypersigma.__main__ import app

TRAIN = {
    "steps": 20, "batch_size": 4, "eval_every": 100, "device": "cpu",
    "optim": {"blr": 0.128, "warmup_steps": 4},
}  # fmt: skip


def call(*arguments):
    """Run a command; return what it printed as JSON."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refusal(*arguments, code=1) -> str:
    """Run a command that must fail, with 2 if a config does not fit; return its last line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]
