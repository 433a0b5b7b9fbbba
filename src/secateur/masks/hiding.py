"""Masked weights as zeros, as fast as a product on the CPU and exact where a product is not.

Bits of a number that stays are all ones and of one that is hidden all zeros, so one bitwise AND
gives the weight or a zero, whatever the weight: minus, infinite and NaN ones as well, of which a
product with zero makes minus zero or NaN. The gradient goes the same way.
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

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, bits: Tensor) -> Tensor:
        return (values.view(bits.dtype) & bits).view(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (bits,) = ctx.saved_tensors
        return _Hidden.apply(gradients[0], bits), None  # type: ignore[no-untyped-call]
