"""The weights of a model at one moment, to go back to: parameters and buffers by name.

Tied tensors are held once, under their first name. Restoring writes into the model's own tensors,
so optimizers and other references to them stay valid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError

Snapshot = Mapping[str, Tensor]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of every parameter and buffer, in main memory so that no GPU pays for them."""
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors_of(model).items()}


def restore_(model: nn.Module, saved: Snapshot) -> None:
    """Write saved weights back into the model.

    Raises: TrainError when names or shapes differ; the model is then unchanged.
    """
    own = tensors_of(model)
    for name in sorted(own.keys() | saved.keys()):
        here = tuple(own[name].shape) if name in own else None
        there = tuple(saved[name].shape) if name in saved else None
        if here != there:
            raise TrainError(
                f"the saved weights belong to another model: {name} has shape {there} there and "
                f"{here} here (None: absent). Give the model they were saved from, or remove the "
                "checkpoint folder to start again"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's own parameters and buffers, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def not_finite(model: nn.Module) -> str | None:
    """The name of a tensor that holds NaN or infinity, None when all are finite."""
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            return name
    return None
