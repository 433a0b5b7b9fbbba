"""A copy of a module that is a copy even where torch refuses one.

Modules keep computed tensors in plain attributes: the old `torch.nn.utils.weight_norm` does, and so
do caches. Such a tensor is part of a graph of gradients, which `copy.deepcopy` refuses to copy; its
value is all that a copy needs.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copied(model: M, memo: dict[int, Any] | None = None) -> M:
    """A deep copy; memo: what stands for an object of the original, by its `id`."""
    memo = {} if memo is None else memo
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf and id(value) not in memo:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)
