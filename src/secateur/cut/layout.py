"""Layout in memory, kept through a cut: slicing forgets that images lay channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out_like(large: Tensor, small: Tensor) -> Tensor:
    """`small` with its channels last in memory if those of `large`, which it was cut from, are.

    >>> large = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    >>> laid_out_like(large, large.index_select(0, torch.tensor([0, 2]))).stride()
    (12, 1, 6, 3)
    """
    last = _LAST.get(large.dim())
    # told by the strides: with one channel or 1x1 kernels a tensor counts as both layouts, and
    # torch then goes by the strides too
    if last is None or large.stride() != _strides(large, last) or large.numel() == 0:
        return small
    out = torch.empty_like(small, memory_format=last)
    return out.copy_(small)


def lay_out_like_(large: nn.Module, small: nn.Module) -> None:
    """Every parameter of a model in the layout that the one it was cut from has."""
    before = dict(large.named_parameters())
    for name, parameter in small.named_parameters():
        if name in before:
            parameter.data = laid_out_like(before[name], parameter.data)


def _strides(tensor: Tensor, layout: torch.memory_format) -> tuple[int, ...]:
    return torch.empty(tensor.shape, device="meta", memory_format=layout).stride()
