"""Three small functions of a tensor by which ranks meet, each right forwards and backwards.

With R ranks, rank r's value x_r and its gradient g_r:

    added     forward sum of x_r over r    backward g          (what follows is the same on all)
    entered   forward x                    backward sum of g_r (each rank used it for its units)
    portion   forward x / R                backward g          (added R times by `added`)

Source: f and g of Shoeybi et al., Megatron-LM 2019, section 3, arXiv 1909.08053; `portion` is ours:
there a bias is added after the sum, which a functional call with its own bias does not allow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.core.world import World


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World, what: str) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        world.sum_([total], what=f"the output of {what}")
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None


class _Entered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World, what: str) -> Tensor:
        ctx.world, ctx.what = world, what
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        ctx.world.sum_([total], what=f"the gradient of {ctx.what}")
        return total, None, None


class _Portion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, size: int) -> Tensor:
        return tensor / size

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def added(tensor: Tensor, world: World, *, what: str) -> Tensor:
    """The sum of the ranks' tensors, on each of them."""
    total: Tensor = _Added.apply(tensor, world, what)  # type: ignore[no-untyped-call]
    return total


def entered(tensor: Tensor, world: World, *, what: str) -> Tensor:
    """The tensor; its gradient will be the sum of the ranks'."""
    same: Tensor = _Entered.apply(tensor, world, what)  # type: ignore[no-untyped-call]
    return same


def portion(tensor: Tensor, world: World) -> Tensor:
    """A rank's equal part of what is added once; its gradient will be as if it were the whole."""
    part: Tensor = _Portion.apply(tensor, world.size)  # type: ignore[no-untyped-call]
    return part
