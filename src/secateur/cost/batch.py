"""Example inputs at another batch size.

Latency depends on the batch, so it is measured at a stated one, with the values of the example
repeated; what the numbers are does not matter to the time that a forward takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def moved(inputs: Any, device: torch.device) -> Any:
    """Inputs with their tensors on a device."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter lies; the CPU without any."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def resize_batch(example_inputs: Any, batch_size: int | None) -> tuple[Any, int]:
    """The example at another batch size, and that size. A tensor, or a tuple or dict of them.

    The batch is dim 0 of the first tensor; tensors whose dim 0 has that size are repeated or
    trimmed, all others stay.

    >>> resize_batch({"ids": torch.tensor([[1], [2]]), "scale": torch.tensor(2.0)}, 3)[0]["ids"].T
    tensor([[1, 2, 1]])
    """
    if isinstance(example_inputs, Mapping):  # a tokenizer's own mapping becomes a plain dict
        example_inputs = dict(example_inputs)
    tensors = [leaf for leaf in pytree.tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
    batch = next((tensor.shape[0] for tensor in tensors if tensor.dim()), None)
    if not batch:
        raise ValueError("example_inputs hold no tensor with a batch: pass a tensor, tuple or dict")
    if batch_size is None or batch_size == batch:
        return example_inputs, batch
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    index = torch.arange(batch_size) % batch

    def resize(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != batch:
            return tensor
        return tensor.index_select(0, index.to(tensor.device))

    return pytree.tree_map_only(Tensor, resize, example_inputs), batch_size
