"""Tensors to a safetensors file, with its hash, one after the other and with no copy of them all.

Source: the format's description, https://huggingface.co/docs/safetensors.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNED = 8


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write CPU tensors by name into `path`, and return the file's size [B] and SHA-256.

    Other threads go on meanwhile: hashing and writing hold no lock of the interpreter.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # The widest first, so that each begins where its kind may.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    end = 0
    for name, value in ordered:
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {
            "dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        parts: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
        for part in chain(parts, (_bytes(value) for _, value in ordered)):
            digest.update(part)
            file.write(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _bytes(value: Tensor) -> memoryview:
    return memoryview(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
