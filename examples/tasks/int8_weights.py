"""Weights as int8 with one float32 scale for each output channel, in a safetensors file.

Only what is stored gets smaller: `load_int8_` multiplies the weights back to float32.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

MOST = 127  # symmetric: -128 is not used


def save_int8(model: nn.Module, path: Path) -> None:
    """Write matrices and convolutions as whole numbers, everything else as it is."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors[name] = tensor.detach()
        if tensor.ndim > 1:
            scale = tensor.abs().amax(tuple(range(1, tensor.ndim)), keepdim=True) / MOST
            scale[scale == 0] = 1
            tensors[name], tensors[f"{name}/scale"] = (tensor / scale).round().char(), scale
    save_file(tensors, path)


def load_int8_(model: nn.Module, path: Path) -> None:
    """Read such a file into a model of the same shapes."""
    tensors = load_file(path)
    scaled = {n: t * tensors.get(f"{n}/scale", 1) for n, t in tensors.items() if "/" not in n}
    model.load_state_dict(scaled)
