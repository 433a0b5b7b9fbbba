"""The commonest functions taken straight to their operator, past torch's dispatcher.

On meta nothing is computed, and most of an operator's time is the way down: arguments parsed, keys
looked up, modes put aside, and the way back. A shortcut says which operator a call ends in and with
which arguments, exactly as the dispatcher would have it; where it cannot be sure the call takes the
long way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Taken = tuple[torch._ops.OpOverload, tuple[Any, ...]]
Shortcut = Callable[..., Taken | None]
_PLAIN = frozenset({Tensor, nn.Parameter})


def taken(func: Callable[..., Any], args: Sequence[Any]) -> Taken | None:
    """The operator that a call ends in when all of its tensors are on meta, and its arguments."""
    shortcut = SHORTCUTS.get(func)
    # under a transform of torch.func a tensor is a view of another, with fewer dimensions
    if shortcut is None or torch._C._functorch.maybe_current_level() is not None:
        return None
    for item in args:
        if isinstance(item, Tensor) and not (type(item) in _PLAIN and item.is_meta):
            return None
    return shortcut(*args)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Taken | None:
    n = weight.dim() - 2
    if x.dim() != weight.dim() or isinstance(padding, str):
        return None
    sizes = (_each(value, n) for value in (stride, padding, dilation))
    operator = torch.ops.aten.convolution.default
    return operator, (x, weight, bias, *sizes, False, [0] * n, int(groups))


def _each(value: Any, n: int) -> list[int]:
    return [int(value)] * n if isinstance(value, int) else [int(item) for item in value]


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    *rest: Any,
) -> Taken | None:
    # in evaluation its by-products are nobody's, so the operator that has none stands for it
    operator = torch.ops.aten.batch_norm.default
    return None if training else (operator, (x, weight, bias, mean, var, False, *rest))


def _alone(operator: torch._ops.OpOverload) -> Shortcut:
    """A tensor and nothing else."""
    return lambda *args: (operator, args) if len(args) == 1 else None


def _both(operator: torch._ops.OpOverload) -> Shortcut:
    """Two tensors."""
    return lambda *args: (
        (operator, args) if len(args) == 2 and isinstance(args[1], Tensor) else None
    )


def _bounded(operator: torch._ops.OpOverload) -> Shortcut:
    """A tensor and two bounds."""
    return lambda *args: (operator, args) if len(args) == 3 else None


def _table() -> dict[Callable[..., Any], Shortcut]:
    aten, homes = torch.ops.aten, (torch, torch.Tensor, torch._C._nn)
    kinds: tuple[tuple[Callable[[torch._ops.OpOverload], Shortcut], str], ...] = (
        (_alone, "relu relu_ sigmoid silu silu_ hardswish hardswish_ hardsigmoid hardsigmoid_"),
        (_both, "add.Tensor add_.Tensor mul.Tensor mul_.Tensor"),
        (_bounded, "hardtanh hardtanh_"),
    )
    table: dict[Callable[..., Any], Shortcut] = dict.fromkeys(
        (torch.conv1d, torch.conv2d, torch.conv3d), _convolution
    )
    table[torch.batch_norm] = _batch_norm
    for make, operators in kinds:
        for operator in operators.split():
            name, _, overload = operator.partition(".")
            shortcut = make(getattr(getattr(aten, name), overload or "default"))
            table.update({getattr(home, name): shortcut for home in homes if hasattr(home, name)})
    return table


SHORTCUTS = _table()
"""The shortcut of each function that has one."""
