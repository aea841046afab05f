"""Tasks: a head and its loss on top of encoders."""

from collections.abc import Callable

from torch import nn

from hypersigma.tasks.classification import build_classifier

TASKS: dict[str, Callable[..., nn.Module]] = {"classification": build_classifier}
