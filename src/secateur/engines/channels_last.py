"""Convolutions that compute in channels_last although their weights do not lie so.

FSDP2 shards contiguous weights alone. A convolution computes in channels_last, the faster layout on
a CPU and on tensor cores, when its weight or its input lies so; so where the weight did, the input
is made to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def is_channels_last(weight: Tensor) -> bool:
    """Whether the strides say so, also where a dimension has one element alone.

    >>> is_channels_last(torch.zeros(8, 1, 3, 3))
    False
    >>> is_channels_last(torch.zeros(8, 1, 3, 3).to(memory_format=torch.channels_last))
    True
    """
    is_flat = weight.ndim != 4 or weight.stride() == weight.new_empty(weight.shape).stride()
    return not is_flat and weight.stride() == _strides(weight)


def make_contiguous_(model: nn.Module) -> None:
    """Every parameter, where convolutions go on to compute in the layout that they had."""
    with torch.no_grad():
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        laid = [m for m in convolutions if is_channels_last(m.weight)]
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    for module in laid:
        module.register_forward_pre_hook(_lay_input)


def _lay_input(module: nn.Module, inputs: Any) -> Any:
    x, *rest = inputs
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        if x.stride() != _strides(x):  # of one channel it counts as both
            x = x.as_strided(x.shape, _strides(x))
    return (x, *rest)


def _strides(x: Tensor) -> tuple[int, ...]:
    _, channels, height, width = x.shape
    return (channels * height * width, 1, channels * width, channels)
