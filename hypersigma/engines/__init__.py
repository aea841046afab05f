"""How a model is trained: by one process, or by several that share the work out.

`engine(...)` returns one; what all of them do is `Engine`, and it is all that the loop knows.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from hypersigma import distributed
from hypersigma.checkpoint import Tensors
from hypersigma.engines.single import Single
from hypersigma.runfolder import TrainError
from hypersigma.trainconfig import TrainConfig


class Engine(Protocol):
    """A model, its optimiser, and the processes that train it together.

    All processes call the same things in the same order.
    """

    forward: Callable[..., Any]
    """The model as it must be called while training."""

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return what one batch's forward and backward pass run in; the step's last one or not."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; `step` takes their mean over the processes."""

    def step(self, lr: float) -> float:
        """Clip the gradients, update the weights, and return the norm that the gradients had."""

    def averaged(self) -> AbstractContextManager[Any]:
        """Return what gives the model the running mean of its weights, where there is one."""

    def state(self, *, keep: bool) -> Tensors | None:
        """Return copies of all weights and moments on the CPU; None where they are not kept."""

    def load(self, tensors: Tensors) -> None:
        """Take weights and moments that `state` returned, of any engine and number of processes."""


def engine(model: nn.Module, config: TrainConfig) -> Engine:
    """Return what a config trains a model with.

    Args:
        model: On its device.
        config: Of the run.

    Raises:
        TrainError: The engine is for one process, and there are several.
    """
    name = config.engine
    if name == "auto":
        name = "ddp" if distributed.world() > 1 else "single"
    if name == "single":
        if distributed.world() > 1:
            raise TrainError(
                f"train.engine: single is for one process, and {distributed.world()} were "
                "started; give ddp or deepspeed, or start one"
            )
        return Single(model, config)
    if name == "ddp":
        from hypersigma.engines.ddp import Ddp

        return Ddp(model, config)
    from hypersigma.engines.deepspeed import deepspeed_engine

    return deepspeed_engine(model, config)
