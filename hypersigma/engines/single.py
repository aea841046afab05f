"""One process with the whole model."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hypersigma.checkpoint import MEAN, Tensors
from hypersigma.optim import adamw, set_learning_rate
from hypersigma.trainconfig import TrainConfig


class Single:
    """Plain AdamW; see `hypersigma.engines.Engine`.

    Args:
        model: On its device.
        config: Of the run.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.forward: Callable[..., Any] = model
        self._model, self._clip = model, config.optim.clip
        self._optimizer = adamw(model, config.optim)
        self._ema = config.ema
        self._means = _trained(model) if config.ema else {}

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return nothing special."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def step(self, lr: float) -> float:
        """Clip, update, and return the norm before."""
        set_learning_rate(self._optimizer, lr)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._clip).item()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the running mean of its weights meanwhile, if there is one."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self, *, keep: bool) -> Tensors | None:
        """Return copies on the CPU."""
        if not keep:
            return None
        moments = {
            f"{key}.{name}": value
            for name, parameter in self._model.named_parameters()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }
        moments |= {f"{MEAN}{name}": value for name, value in self._means.items()}
        return Tensors(copies(self._model.state_dict()), copies(moments))

    def load(self, tensors: Tensors) -> None:
        """Take weights and moments; a parameter without moments begins anew."""
        self._model.load_state_dict(dict(tensors.model))
        self._optimizer.state.clear()
        self._optimizer.zero_grad(set_to_none=True)
        for name, parameter in self._model.named_parameters():
            found = moments_of(name, tensors)
            if found and parameter.requires_grad:
                # As AdamW makes them: the count of steps beside the parameter only if it is fused.
                self._optimizer.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in found.items()
                }
        if self._ema:
            self._means = _trained(self._model)
            for name, value in self._means.items():
                if (found_mean := tensors.moments.get(f"{MEAN}{name}")) is not None:
                    value.copy_(found_mean)

    def _average(self) -> None:
        if not self._ema:
            return
        parameters = dict(self._model.named_parameters())
        now = [parameters[name].detach() for name in self._means]
        updates = float(next(iter(self._optimizer.state.values()))["step"])
        stays = min(self._ema, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self._means.values()), now, 1 - stays)

    def _swap(self) -> None:
        for name, parameter in self._model.named_parameters():
            if name in self._means:
                self._means[name], parameter.data = parameter.data, self._means[name]


MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter: updates so far, and the running means."""


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the weights that are trained."""
    named = model.named_parameters()
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def moments_of(name: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the moments of a parameter by their kind; none before its first update."""
    keys = {key: f"{key}.{name}" for key in MOMENTS}
    return {key: tensors.moments[full] for key, full in keys.items() if full in tensors.moments}


def copies(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU, so that what they are of may change."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in values.items()
    }
