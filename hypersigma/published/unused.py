"""Weights that a published model has and that no output depends on.

They exist so that its state dict loads and saves whole. Nothing reads them and nothing trains them.
"""

from collections.abc import Mapping

import torch
from torch import nn

type Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each entry of a state dict, by its dotted name."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Entries of a batch norm that are no parameters."""


class Unused(nn.Module):
    """A place for names below it; it computes nothing."""


def add_unused(module: nn.Module, shapes: Shapes) -> None:
    """Give `module` entries of these names, zeros, that `unused_names` knows."""
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        owner = module
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, Unused())
            owner = owner.get_submodule(part)
        if leaf in STATISTICS:
            kind = torch.int64 if leaf == "num_batches_tracked" else torch.float32
            owner.register_buffer(leaf, torch.zeros(shape, dtype=kind))
        else:
            owner.register_parameter(leaf, nn.Parameter(torch.zeros(shape), requires_grad=False))
    module.unused = (*getattr(module, "unused", ()), *shapes)  # type: ignore[assignment]  # torch types attributes as tensors or modules


def retire(module: nn.Module, child: str) -> None:
    """Put unused entries in the place of a child of `module`."""
    shapes = shapes_of(module.get_submodule(child), f"{child}.")
    delattr(module, child)
    add_unused(module, shapes)


def shapes_of(module: nn.Module, prefix: str = "") -> Shapes:
    """Return the shapes of a module's state dict, each name with `prefix` before it."""
    return {f"{prefix}{name}": tuple(value.shape) for name, value in module.state_dict().items()}


def with_biases(weights: Shapes) -> Shapes:
    """Return `NAME.weight` and `NAME.bias`, as long as the weight's first side, of each layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weights.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def unused_names(model: nn.Module) -> frozenset[str]:
    """Return the entries of a model's state dict that no output depends on."""
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in getattr(module, "unused", ())
    )
