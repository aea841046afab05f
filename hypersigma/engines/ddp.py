"""Several processes, each with the whole model; torch averages their gradients."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hypersigma.engines.single import Single
from hypersigma.trainconfig import TrainConfig


class Ddp(Single):
    """DistributedDataParallel; see `hypersigma.engines.Engine`.

    Gradients are averaged while the backward pass of a step's last batch still runs.

    Args:
        model: On its device.
        config: Of the run.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(model, config)
        device = next(model.parameters()).device
        self._wrapped = DistributedDataParallel(
            model,
            device_ids=None if device.type == "cpu" else [device.index],
            forward_sync_buffers=False,  # none of our models has one that changes
            gradient_as_bucket_view=True,
        )
        self.forward = self._wrapped

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Let gradients add up in this process until the last batch."""
        return nullcontext() if last else self._wrapped.no_sync()
