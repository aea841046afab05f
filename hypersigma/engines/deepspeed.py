"""DeepSpeed's ZeRO: processes share out moments, gradients and weights.

Source: Rajbhandari et al. 2020, arXiv:1910.02054.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypersigma import distributed
from hypersigma.checkpoint import Tensors
from hypersigma.engines.single import Single, moments_of
from hypersigma.optim import adamw, set_learning_rate
from hypersigma.runfolder import TrainError
from hypersigma.trainconfig import TrainConfig

SHARED_OUT = 10_000
"""Values from which on a weight is shared out with `zero: 3`; smaller ones stay whole."""
_MEANS = ("exp_avg", "exp_avg_sq")


def deepspeed_engine(model: nn.Module, config: TrainConfig) -> "Replicated | Sharded":
    """Return DeepSpeed's engine for a config.

    Raises:
        TrainError: `offload` is asked for, and `zero: 0` shares nothing out; or `ema`, and weights
            are shared out.
    """
    if config.ema and config.zero:
        raise TrainError("train.ema needs whole weights: give train.zero=0, or train.engine=ddp")
    if config.offload and not config.zero:
        raise TrainError("train.offload needs train.zero from 1: 0 shares nothing out")
    return Sharded(model, config) if config.zero else Replicated(model, config)


class Replicated(Single):
    """`zero: 0`: as DDP does; see `hypersigma.engines.Engine`."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(model, config)
        self._engine = _initialized(model, self._optimizer, config)
        self.forward: Callable[..., Any] = self._engine
        self._last = False

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Note whether this is the last."""
        self._last = last
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; after the last, average them over the processes."""
        _backward(self._engine, loss, last=self._last)

    def step(self, lr: float) -> float:
        """Clip, update, and return the norm before."""
        set_learning_rate(self._optimizer, lr)
        # Of float32 without ZeRO, DeepSpeed tells no norm.
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._clip).item()
        self._engine.step()
        self._average()
        return norm


class Sharded:
    """`zero: 1`, `2` and `3`; see `hypersigma.engines.Engine`.

    Args:
        model: On its device.
        config: Of the run.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._model, self._last = model, False
        self._engine = _initialized(model, adamw(model, config.optim), config)
        self.forward: Callable[..., Any] = self._engine
        self._zero = self._engine.optimizer
        self._whole = config.zero < 3
        flat = "single_partition_of_fp32_groups" if self._whole else "fp32_partitioned_groups_flat"
        self._shares: list[Tensor] = list(getattr(self._zero, flat))
        # DeepSpeed finds the moments of the first group of parameters alone if it makes them.
        self._set_moments(updates=0)

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Note whether this is the last."""
        self._last = last
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; after the last, average them over the processes."""
        _backward(self._engine, loss, last=self._last)

    def step(self, lr: float) -> float:
        """Clip, update, and return the norm before."""
        set_learning_rate(self._zero.optimizer, lr)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def averaged(self) -> AbstractContextManager[Any]:
        """Return nothing special: there is no running mean."""
        return nullcontext()

    def state(self, *, keep: bool) -> Tensors | None:
        """Return copies on the CPU, put together from the processes' shares."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        states = [self._zero.optimizer.state.get(share) for share in self._shares]
        updates = max((float(state["step"]) for state in states if state), default=0.0)
        weights, moments = dict[str, Tensor](), dict[str, Tensor]()
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                with self._gathered(parameter):
                    _keep(weights, name, parameter.detach(), keep=keep)
                continue
            _keep(weights, name, safe_get_full_fp32_param(parameter), keep=keep)
            for key in _MEANS if updates else ():
                value = safe_get_full_optimizer_state(parameter, key)
                _keep(moments, f"{key}.{name}", value, keep=keep)
            if updates:
                _keep(moments, f"step.{name}", torch.tensor(updates), keep=keep)
        for name, buffer in self._buffers().items():
            _keep(weights, name, buffer, keep=keep)
        return Tensors(weights, moments) if keep else None

    def _buffers(self) -> dict[str, Tensor]:
        """Return what the model keeps beside its parameters: scalings, for example."""
        kept = self._model.state_dict().keys()
        return {name: one for name, one in self._model.named_buffers() if name in kept}

    def load(self, tensors: Tensors) -> None:
        """Take weights and moments; each process takes its share."""
        counts = [v for name, v in tensors.moments.items() if name.startswith("step.")]
        self._set_moments(updates=max((float(value) for value in counts), default=0.0))
        for name, parameter in self._model.named_parameters():
            self._put(parameter, tensors.model[name], None)
            with torch.no_grad(), self._gathered(parameter):
                parameter.copy_(tensors.model[name])
            found = moments_of(name, tensors)
            for key in _MEANS if found and parameter.requires_grad else ():
                self._put(parameter, found[key], key)
        for name, buffer in self._buffers().items():
            buffer.copy_(tensors.model[name])

    def _gathered(self, parameter: nn.Parameter) -> AbstractContextManager[Any]:
        """Return what a parameter is whole in; the first process's change to it reaches all."""
        if self._whole:
            return nullcontext()
        import deepspeed

        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(
            [parameter], modifier_rank=0
        )
        return gathered

    def _set_moments(self, *, updates: float) -> None:
        """Make the shares' moments, all 0, after so many updates."""
        for share in self._shares:
            state = self._zero.optimizer.state[share]
            if not state:
                state |= {key: torch.zeros_like(share) for key in _MEANS}
                state["step"] = torch.zeros((), dtype=torch.float32, device=share.device)
            for key in _MEANS:
                state[key].zero_()
            state["step"].fill_(updates)
        if self._whole:
            self._zero._lazy_init_hp_params_optimizer_state()

    def _put(self, parameter: nn.Parameter, value: Tensor, key: str | None) -> None:
        """Set this process's share of a parameter's float32 weights, or of one of its moments."""
        from deepspeed import utils

        if not parameter.requires_grad:
            return
        value = value.to(parameter.device, torch.float32)
        if self._whole:
            if key is None:
                utils.safe_set_full_fp32_param(parameter, value)
            else:
                utils.safe_set_full_optimizer_state(parameter, value, key)
            return
        length = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # DeepSpeed's own
        begin = distributed.rank() * length
        share = value.flatten()[begin : begin + length]
        share = F.pad(share, (0, length - len(share)))  # the last ones have no whole share
        if key is None:
            utils.safe_set_local_fp32_param(parameter, share)
        else:
            utils.safe_set_local_optimizer_state(parameter, share, key)


def _initialized(model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    device = next(model.parameters()).device
    os.environ.setdefault("LOCAL_RANK", "0")  # of a process that nothing launched
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with contextlib.redirect_stdout(sys.stderr):  # where its log goes from now on
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        if device.type == "cpu":
            # Or it would compile an operator for processes of one machine, when first used.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=settings(config, device)
        )
    return engine


def settings(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Return DeepSpeed's own config."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    zero: dict[str, Any] = {"stage": config.zero}
    if config.zero == 3:
        zero["stage3_param_persistence_threshold"] = SHARED_OUT
    if config.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": config.parts(distributed.world()),
        "gradient_clipping": config.optim.clip if config.zero else 0.0,
        # Weights and what is sent stay in float32, as with the other engines.
        "torch_autocast": {
            "enabled": bf16,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }


def _backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    engine.backward(loss, scale_wrt_gas=False)
    if not last:
        engine.step()  # which only counts


def _keep(found: dict[str, Tensor], name: str, value: Tensor, *, keep: bool) -> None:
    if keep:
        found[name] = value.detach().to("cpu", copy=True)
