"""Carry an optimizer through a cut: the same object, smaller parameters, the state of what stays.

Momentum and the moments of Adam hold one number for each weight, so they are sliced like the
weights; step counts stay. Because the optimizer object is the same, schedulers, scalers and hooks
that refer to it keep working, and training goes on as if the removed weights had never been there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from secateur.core.errors import CutError
from secateur.cut.layout import laid_out_like
from secateur.cut.slicing import Kept, Slicer


def carry_optimizer_(
    optimizer: Optimizer,
    replaced: Mapping[nn.Parameter, tuple[nn.Parameter, Kept]],
    *,
    removed: Collection[nn.Parameter] = (),
) -> None:
    """Let `optimizer` hold the new parameters, with the kept part of the old ones' state.

    replaced: for each old parameter the new one and the kept indices of each dimension. removed:
    parameters that go as a whole, and their state with them.
    Parameters that the optimizer does not hold are passed over, as are those without state yet.
    A state tensor is sliced in the dimensions that it shares with the parameter, so Adafactor's
    row and column statistics are carried too.
    Raises: CutError when a shape does not fit; the optimizer is then unchanged.

    >>> import torch
    >>> old, new = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 2))
    >>> optimizer = torch.optim.SGD([old], lr=0.1)
    >>> carry_optimizer_(optimizer, {old: (new, (torch.tensor([0, 2]), None))})
    >>> optimizer.param_groups[0]["params"][0] is new
    True
    """
    if isinstance(optimizer, LBFGS):
        raise CutError(
            "LBFGS keeps one flat history of all parameters, which cannot be cut; "
            "make a new LBFGS from the cut model's parameters()"
        )
    held = [p for group in optimizer.param_groups for p in group["params"] if p in replaced]
    # computed in full before anything is written, so that an error leaves the optimizer whole
    for old in held:
        _check_shape(old, *replaced[old])
    slicer = Slicer()
    states = {
        old: {
            name: _cut_value(value, name, old, replaced[old][1], slicer)
            for name, value in optimizer.state[old].items()
        }
        for old in held
        if old in optimizer.state
    }
    gone = {id(parameter) for parameter in removed}
    for parameter in removed:
        optimizer.state.pop(parameter, None)
    for group in optimizer.param_groups:
        group["params"] = [
            replaced[p][0] if p in replaced else p for p in group["params"] if id(p) not in gone
        ]
    for old, state in states.items():
        del optimizer.state[old]
        optimizer.state[replaced[old][0]] = state


def _cut_value(value: Any, name: str, old: nn.Parameter, kept: Kept, slicer: Slicer) -> Any:
    if not isinstance(value, Tensor) or (value.numel() == 1 and value.shape != old.shape):
        return value  # a step count and the like
    # equal in every dimension, or broadcast along it as Adafactor's rows [m, 1] for [m, n]
    fits = value.ndim == old.ndim and all(
        mine in (1, full) for mine, full in zip(value.shape, old.shape, strict=True)
    )
    if not fits:
        raise CutError(
            f"optimizer state {name!r} has shape {tuple(value.shape)}, which is not that of its "
            f"parameter {tuple(old.shape)}, so it cannot be cut along with it; make a new "
            "optimizer from the cut model's parameters()"
        )
    whole = zip(value.shape, old.shape, kept, strict=True)
    own = tuple(indices if mine == full else None for mine, full, indices in whole)
    return laid_out_like(value, slicer(value, own))


def _check_shape(old: nn.Parameter, new: nn.Parameter, kept: Kept) -> None:
    expected = tuple(
        size if indices is None else len(indices)
        for size, indices in zip(old.shape, kept, strict=True)
    )
    if tuple(new.shape) != expected:
        raise CutError(
            f"a parameter of shape {tuple(old.shape)} was replaced by one of {tuple(new.shape)}, "
            f"but the kept indices leave {expected}; give the indices that the cut used"
        )
