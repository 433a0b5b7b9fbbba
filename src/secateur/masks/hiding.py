"""Masked weights as zeros, as fast as a product on the CPU and exact where a product is not.

Bits of a number that stays are all ones and of one that is hidden all zeros, so one bitwise AND
gives the weight or a zero, whatever the weight: minus, infinite and NaN ones as well, of which a
product with zero makes minus zero or NaN. The gradient goes the same way. Not for the transforms of
`torch.func`, which ask for functions of another form, of thrice the overhead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(kept: Tensor, weight: Tensor) -> Tensor:
    """All ones where the weight stays, all zeros elsewhere, as integers of the weight's size."""
    return kept.to(_INTEGERS[weight.element_size()]).neg_()


def hidden(weight: Tensor, bits: Tensor) -> Tensor:
    """The weight where `bits` are ones, and zero elsewhere.

    >>> weight = torch.tensor([-1.0, float("nan"), 2.0])
    >>> hidden(weight, bits_of(torch.tensor([False, False, True]), weight)).tolist()
    [0.0, 0.0, 2.0]
    """
    out: Tensor = _Hidden.apply(weight, bits)  # type: ignore[no-untyped-call]
    return out


class _Hidden(torch.autograd.Function):
    """Linear in its first argument, so its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: Tensor) -> Tensor:
        ctx.bits = bits
        return _and(values, bits)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():  # the gradient's own gradient is wanted
            return hidden(gradients[0], ctx.bits), None
        return _and(gradients[0], ctx.bits), None


def _and(values: Tensor, bits: Tensor) -> Tensor:
    return (values.view(bits.dtype) & bits).view(values.dtype)
