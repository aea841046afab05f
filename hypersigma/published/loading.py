"""Put a state dict into a published model, and say what became of every key."""

from collections.abc import Mapping

from torch import Tensor

from hypersigma.backbones.loading import Report, fit, is_decoder, wrong_size

ENCODERS = ("spat_encoder.", "spec_encoder.", "encoder.")
"""Prefixes of encoders in a model."""


def match(
    own: Mapping[str, Tensor], unused: frozenset[str], state_dict: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Report]:
    """Return the weights at the shapes of a model's own entries, and the report on every key.

    Args:
        own: The model's state dict; its values are not read.
        unused: Entries of it that no output depends on.
        state_dict: The weights.

    Raises:
        ValueError: No name is one of the model's, or a block's weight has another shape.
    """
    if not own.keys() & state_dict.keys():
        raise ValueError(
            f"expected names as {_few(own)}, got {_few(state_dict)}: weights of another model, or "
            "of an encoder by itself, whose names need `spat_encoder.` or `spec_encoder.` in front"
        )
    fitted: dict[str, Tensor] = {}
    loaded, resized, ignored, missing = [], [], [], []
    for name, value in state_dict.items():
        if name not in own:
            ignored.append(f"{name}: {_why_not_here(name)}")
            continue
        shape = own[name].shape
        fitting = _fit(name, value, own)
        if fitting is None:
            missing.append(f"{name}: expected {tuple(shape)}, got {tuple(value.shape)}; {_KEPT}")
            continue
        fitted[name] = fitting
        if name in unused:
            ignored.append(f"{name}: known unused, no output depends on it")
        elif value.shape == shape:
            loaded.append(name)
        else:
            resized.append(f"{name}: {tuple(value.shape)} -> {tuple(shape)}")
    for name in own.keys() - state_dict.keys():
        why = "known unused, no output depends on it" if name in unused else "not among the weights"
        missing.append(f"{name}: {why}; {_KEPT}")
    report = Report(tuple(loaded), tuple(resized), tuple(ignored), tuple(sorted(missing)))
    return fitted, report


_KEPT = "stays as constructed"


def _fit(name: str, value: Tensor, own: Mapping[str, Tensor]) -> Tensor | None:
    encoder, within = split(name)
    line = f"{encoder}spat_map.weight" in own
    fitting = fit(within, value, own[name].shape, line=line)
    if fitting is None and within.startswith("blocks."):
        raise ValueError(wrong_size(name, value, own[name]))
    return fitting


def split(name: str) -> tuple[str, str]:
    """Return a name's encoder with its dot, empty if it has none, and the name within that."""
    for prefix in ENCODERS:
        if name.startswith(prefix):
            return prefix, name.removeprefix(prefix)
    return "", name


def _why_not_here(name: str) -> str:
    if is_decoder(split(name)[1]):
        return "belongs to the decoder"
    return "not in this model"


def _few(names: Mapping[str, Tensor]) -> str:
    return ", ".join(list(names)[:3])
