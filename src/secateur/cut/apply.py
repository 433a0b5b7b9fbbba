"""Applying a plan: slice parameters and buffers, rewrite attributes, carry the optimizer along.

`cut` gives a new module and never copies the weights that go; `cut_` works in place. Both leave an
ordinary module: no masks, hooks or wrappers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.core.collecting import uncollected
from secateur.core.copies import copied
from secateur.core.dims import Dim, axes_of, dim_size, kept_indices
from secateur.core.errors import PlanMismatchError
from secateur.core.fingerprint import fingerprint, named_tensors
from secateur.core.plan import Plan
from secateur.core.scales import Fold
from secateur.cut.attributes import rewrite_attributes_
from secateur.cut.depth import (
    Following,
    follow_,
    numbered_attributes,
    remove_blocks_,
    tensors_of_blocks,
)
from secateur.cut.layer_counts import configuration_changes
from secateur.cut.layout import laid_out_like
from secateur.cut.optimizer import carry_optimizer_
from secateur.cut.slicing import Kept, Slicer


@uncollected()
def cut(model: nn.Module, plan: Plan) -> nn.Module:
    """A new, smaller module: `model` without the units that the plan removes.

    Weights that stay are copied, so the original is untouched and shares nothing with the result.
    Raises: PlanMismatchError when the plan was made for another model.

    >>> from secateur.core.cost import Cost
    >>> model, nothing = nn.Linear(2, 2), Cost(6, 4, 24)
    >>> plan = Plan(fingerprint(model), "", {}, {}, {}, (), nothing, nothing)
    >>> cut(model, plan)
    Linear(in_features=2, out_features=2, bias=True)
    """
    check_fingerprint(model, plan)
    followings = _followings(model, plan)
    gone = tensors_of_blocks(model, plan) if plan.removed else {}
    memo: dict[int, Any] = {
        number: _rewrapped(tensor, tensor.detach().to("meta")) for number, tensor in gone.items()
    }
    slicer = Slicer()
    for name, tensor, kept in _changed(model, plan):
        memo[id(tensor)] = _small(name, tensor, kept, plan, slicer)
    with torch.no_grad():
        small = copied(model, memo)
    _rewrite_(small, plan, followings)
    return small


def cut_(model: nn.Module, plan: Plan, *, optimizer: Optimizer | None = None) -> nn.Module:
    """Remove units from `model` in place, and from an optimizer's state; returns the model.

    The optimizer object stays the same, with momentum and moments of what is kept, so training
    goes on. Raises: PlanMismatchError when the plan was made for another model.
    """
    check_fingerprint(model, plan)
    followings = _followings(model, plan)
    slicer, new = Slicer(), dict[int, Tensor]()
    replaced: dict[nn.Parameter, tuple[nn.Parameter, Kept]] = {}
    for name, tensor, kept in _changed(model, plan):
        small = new[id(tensor)] = _small(name, tensor, kept, plan, slicer)
        if isinstance(tensor, nn.Parameter) and isinstance(small, nn.Parameter):
            replaced[tensor] = (small, kept)
    if optimizer is not None:
        gone = tensors_of_blocks(model, plan).values() if plan.removed else ()
        carry_optimizer_(
            optimizer, replaced, removed=[p for p in gone if isinstance(p, nn.Parameter)]
        )
    _replace_(model, new)
    _rewrite_(model, plan, followings)
    return model


def apply_architecture_(model: nn.Module, plan: Plan) -> nn.Module:
    """Give a dense model the plan's shapes and attributes, weights uninitialised; returns it.

    What `load` needs to rebuild a pruned model from its plan before it fills in the weights.
    Raises: PlanMismatchError when the plan was made for another model.
    """
    check_fingerprint(model, plan)
    followings = _followings(model, plan)
    counts_shape = {name: plan.shape(name) for name in plan.tensors}
    new = {
        id(tensor): _rewrapped(
            tensor, torch.empty(counts_shape[name], dtype=tensor.dtype, device=tensor.device)
        )
        for name, tensor in named_tensors(model)
        if name in counts_shape
    }
    _replace_(model, new)
    _rewrite_(model, plan, followings)
    return model


def check_fingerprint(model: nn.Module, plan: Plan) -> None:
    """Refuse another model. Raises: PlanMismatchError that names the first differences."""
    if fingerprint(model) == plan.fingerprint:
        return
    own = {name: tuple(tensor.shape) for name, tensor in named_tensors(model)}
    planned = {name: tuple(dim_size(dim) for dim in dims) for name, dims in plan.tensors.items()}
    wrong = [
        f"{name}: the plan says {shape}, the model has {own.get(name, 'no such tensor')}"
        for name, shape in planned.items()
        if own.get(name) != shape
    ]
    shown = "; ".join(wrong[:3]) or "the tensors that it cuts fit, but other parts differ"
    more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
    raise PlanMismatchError(
        f"the plan was made for another model than this {type(model).__name__}: {shown}{more}. "
        "Make a plan for this model, or load the dense model that the plan was made for (a model "
        "that is already cut is another model)"
    )


def _followings(model: nn.Module, plan: Plan) -> list[Following]:
    """What has to follow when blocks go, told from the dense model."""
    if not plan.removed:
        return []
    return [*numbered_attributes(model, plan), *configuration_changes(model, plan)]


def _rewrite_(model: nn.Module, plan: Plan, followings: list[Following]) -> None:
    """Attributes to their new values, then the blocks out of the model."""
    rewrite_attributes_(model, plan.changes)
    if plan.removed:
        follow_(model, followings)
        remove_blocks_(model, plan)


def kept_of(plan: Plan) -> Callable[[str], Kept]:
    """Kept indices of each dimension by tensor name; each distinct dimension is computed once."""
    keep, indices = plan.kept_units(), dict[Dim, Tensor | None]()

    def one(dim: Dim) -> Tensor | None:
        if dim not in indices:
            changed = any(axis.index in keep for axis in axes_of(dim))
            indices[dim] = kept_indices(dim, keep) if changed else None
        return indices[dim]

    return lambda name: tuple(one(dim) for dim in plan.tensors[name])


def _changed(model: nn.Module, plan: Plan) -> Iterator[tuple[str, Tensor, Kept]]:
    kept = kept_of(plan)
    folded = {fold.rows.tensor for fold in plan.folds}
    for name, tensor in named_tensors(model):
        if name in plan.tensors:
            yield name, tensor, kept(name)
        elif name in folded:
            yield name, tensor, (None,) * tensor.dim()


def _small(name: str, tensor: Tensor, kept: Kept, plan: Plan, slicer: Slicer) -> Tensor:
    """What stays of a tensor, with its folds."""
    small = laid_out_like(tensor, slicer(tensor.detach(), kept))
    for fold in plan.folds:
        if fold.rows.tensor == name:
            factors = _factors(fold, tensor.shape[fold.rows.dim], kept[fold.rows.dim])
            along = [-1 if k == fold.rows.dim else 1 for k in range(small.dim())]
            factors = factors.to(small.device, small.dtype)
            small = small * factors.reshape(along)
    return _rewrapped(tensor, small)


def _factors(fold: Fold, size: int, kept: Tensor | None) -> Tensor:
    """The factor of each kept row."""
    factors = torch.ones(size, dtype=torch.float64)
    for start, stop in fold.rows.ranges:
        factors[start:stop] = fold.factor
    return factors if kept is None else factors[kept]


def _rewrapped(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _replace_(model: nn.Module, new: dict[int, Tensor]) -> None:
    for module in model.modules():
        for registry in (module._parameters, module._buffers):
            for name, tensor in registry.items():
                if tensor is not None and id(tensor) in new:
                    registry[name] = new[id(tensor)]  # type: ignore[assignment]
        flat = module.__dict__.get("_flat_weights")
        if isinstance(flat, list):  # recurrent layers keep their weights a second time
            module.__dict__["_flat_weights"] = [new.get(id(t), t) for t in flat]
