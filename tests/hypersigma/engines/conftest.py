"""The landscape of the runs' tests, and processes that train on it together."""

from tests.hypersigma.runs.conftest import finetuning, one_thread, pretraining, world

__all__ = ["finetuning", "one_thread", "pretraining", "world"]
