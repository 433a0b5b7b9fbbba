"""A copy of a module that is a copy even where torch refuses one.

Modules keep computed tensors in plain attributes: the old `torch.nn.utils.weight_norm` does, and so
do caches. Such a tensor is part of a graph of gradients, which `copy.deepcopy` refuses to copy; its
value is all that a copy needs.

What a forward kept for the next one may not fit a copy that is changed: modules with such caches
drop them when they are put in training mode, so a copy was there once.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secateur.core.fingerprint import named_modules
from secateur.core.modes import modes_kept

M = TypeVar("M", bound=nn.Module)


def copied(model: M, memo: dict[int, Any] | None = None) -> M:
    """A deep copy; memo: what stands for an object of the original, by its `id`.

    Modules are made before what they hold, and their plain attributes taken as they are: what
    `copy.deepcopy` comes to as well, after asking thousands of values how they want to be copied.
    """
    memo = {} if memo is None else memo
    ordinary = []
    for _, module in named_modules(model):
        for value in vars(module).values():
            if type(value) in _SHARED:
                continue
            if isinstance(value, Tensor) and not value.is_leaf and id(value) not in memo:
                memo[id(value)] = value.detach().clone()
        kind: Any = type(module)
        if id(module) not in memo and _is_ordinary(kind):
            memo[id(module)] = kind.__new__(kind)
            ordinary.append(module)
    for module in ordinary:
        state: dict[str, Any] = module.__getstate__()  # type: ignore[no-untyped-call]
        memo[id(module)].__setstate__(
            {k: v if type(v) in _SHARED else _value(v, memo) for k, v in state.items()}
        )
    twin = copy.deepcopy(model, memo)
    kinds = {type(module) for _, module in named_modules(twin)}
    if any(kind.train is not nn.Module.train for kind in kinds):
        with modes_kept(twin):
            twin.train()
    return twin


@cache
def _is_ordinary(kind: Any) -> bool:
    """Whether instances are copied as Python does by itself: a new object with the same state."""
    own = {name for base in kind.__mro__ for name in vars(base) if base is not object}
    special = {"__deepcopy__", "__reduce__", "__reduce_ex__", "__slots__", "__new__"}
    special |= {"__getnewargs__", "__getnewargs_ex__"}
    state: Any = nn.Module.__getstate__
    return not own & special and kind.__getstate__ is state


def _value(value: Any, memo: dict[int, Any]) -> Any:
    known = memo.get(id(value))
    if known is not None:
        return known
    kind = type(value)
    if kind in _CONTAINERS and not value:  # a module has a dozen of them, for hooks
        memo[id(value)] = new = kind()
        return new
    if kind is tuple and all(type(item) in _SHARED for item in value):
        return value
    if kind is Tensor and not value.dim() and not value.requires_grad and not vars(value):
        memo[id(value)] = new = value.clone()  # a counter, as every batch norm has one
        return new
    if kind is dict and all(type(key) in _SHARED for key in value):
        new = memo[id(value)] = {}
        for key, item in value.items():
            new[key] = item if type(item) in _SHARED else _value(item, memo)
        return new
    return copy.deepcopy(value, memo)


_CONTAINERS = frozenset({dict, list, set, OrderedDict})
_SHARED = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device})
"""Types whose values no copy needs to copy."""
