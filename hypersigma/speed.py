"""How fast a model computes [FLOP/s], and which share of what its device could do that is."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

PEAKS = {
    "H200": 989e12, "H100": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12,
    "A800": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "A6000": 155e12,
    "RTX 4090": 165e12, "MI300X": 1307e12, "MI250X": 383e12,
}  # fmt: skip
"""Dense bf16 [FLOP/s] of accelerators by a part of their names, the longest match counts.

Source: the makers' data sheets (NVIDIA H100 SXM, A100, L40S, ...; AMD Instinct MI250X, MI300X)."""
_SIDE, _TRIES = 1024, 3
_aten = torch.ops.aten
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu:
        lambda q, k, v, *_, **__: sdpa_flop_count(q.shape, k.shape, v.shape),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape),
}  # fmt: skip
"""Of a CPU, which torch's own registry lacks."""
FORMULAS = {**flop_registry, **_ATTENTION}


class Speed:
    """Counts what one batch of a run costs, and says how fast its steps then were.

    Products of matrices and attention count, of the forward and the backward pass; what is computed
    twice by activation checkpointing counts twice (so this is the hardware's rate).

    Args:
        model: On its device.
        batches: Of a step, over all processes.
        processes: That share them.
        bf16: Whether blocks compute in bf16.
    """

    def __init__(self, model: nn.Module, *, batches: int, processes: int, bf16: bool) -> None:
        self._device = next(model.parameters()).device
        self._batches, self._processes, self._bf16 = batches, processes, bf16
        self._flop: float | None = None
        self._peak: float | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is computed meanwhile, the first time; it is one batch."""
        if self._flop is not None:
            yield
            return
        counter = _Counter()
        with counter:
            yield
        self._flop = counter.flop

    def of(self, seconds: float) -> dict[str, float]:
        """Return `tflops` [1e12/s] of all processes, and `peak_share`, for a step's duration [s].

        The peak is that of the data sheet for a known GPU in bf16, else what a product of large
        matrices reaches here.
        """
        if self._flop is None:
            return {}
        rate = self._flop * self._batches / seconds
        if self._peak is None:
            try:
                self._peak = peak(self._device, bf16=self._bf16)
            except torch.OutOfMemoryError:  # no room beside the model to measure it
                self._peak = 0.0
        share = {"peak_share": rate / self._processes / self._peak} if self._peak else {}
        return {"tflops": rate / 1e12, **share}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out


def peak(device: torch.device, *, bf16: bool) -> float:
    """Return the most FLOP/s that a device can be expected to reach."""
    if device.type == "cuda" and bf16:
        name = torch.cuda.get_device_name(device)
        known = [part for part in PEAKS if re.search(rf"\b{part}\b", name)]
        if known:
            return PEAKS[max(known, key=len)]
    return measured_peak(device, torch.bfloat16 if bf16 else torch.float32)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s that a product of large matrices reaches on a device, the best of some."""
    side = _SIDE if device.type == "cpu" else 8 * _SIDE
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
