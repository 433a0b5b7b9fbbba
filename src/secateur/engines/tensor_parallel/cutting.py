"""A cut of the whole model, applied to what the ranks hold of it: nobody ever holds the whole.

Each rank keeps the kept units among its own; then the shares are balanced again, and only the rows
that change their rank are sent. Momentum and moments of an optimizer go the same way. A tensor at
a time, so that a rank holds its part, its new part of one tensor and the rows of that on their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from secateur.core.dims import Dim, axes_of, kept_indices, new_size
from secateur.core.errors import CutError, PlanMismatchError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.scales import Fold
from secateur.cut.attributes import rewrite_attributes_
from secateur.engines.redistribute import Postal, Route, move_rows, route
from secateur.engines.tensor_parallel.balanced import Balanced
from secateur.engines.tensor_parallel.local import hook_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import split_of


def cut_parallel_(
    model: nn.Module,
    plan: Plan,
    parallel: TensorParallelPlan,
    *,
    graph: Graph,
    world: Postal,
    optimizer: Optimizer | None = None,
) -> TensorParallelPlan:
    """Remove units from a model that ranks share out, in place, and from an optimizer's state.

    plan: a cut of the whole model. parallel: how the ranks share out the whole model. graph: of the
    whole model. Returns how they share out what is left, in balanced shares. Called by every rank.
    Raises: EngineError when a group keeps fewer units than there are ranks; PlanMismatchError when
    the plans belong to different models; CutError for state that cannot be cut.
    """
    _check(plan, parallel, optimizer)
    after = Balanced(plan, parallel, graph)
    changes = after.attributes(world.rank)  # what can fail comes before anything is changed
    replaced: dict[Tensor, Tensor] = {}
    mover = _Mover(plan, parallel, after, world)
    for name, tensor in list(named_tensors(model)):
        if tensor not in replaced and mover.touches(name):
            replaced[tensor] = small = mover.moved(name, tensor)
            if optimizer is not None and isinstance(tensor, nn.Parameter):
                _carry_(optimizer, tensor, small, name, mover)
            _put_(model, tensor, small)
    rewrite_attributes_(model, changes)
    new = after.parallel_plan(model, world.rank)
    hook_(model, new, world)
    return new


def _check(plan: Plan, parallel: TensorParallelPlan, optimizer: Optimizer | None) -> None:
    if plan.fingerprint != parallel.fingerprint:
        raise PlanMismatchError(
            "the cut and the tensor-parallel plan were made for different models; make both from "
            "the graph of the whole model"
        )
    if plan.removed:
        raise CutError(
            f"the plan removes whole blocks ({', '.join(plan.removed[:3])}, ..), which cannot be "
            "taken out of a model that is shared out; cut the whole model and share that out"
        )
    if isinstance(optimizer, LBFGS):
        raise CutError(
            "LBFGS keeps one flat history of all parameters, which cannot be cut; make a new LBFGS "
            "from the cut model's parameters()"
        )


@dataclass(frozen=True, slots=True)
class _Way:
    """What of a rank's tensor stays: indices of its other dimensions, and the way along the one
    that is shared. factors: by which what stays is multiplied, along one dimension each."""

    own: tuple[Tensor | None, ...]
    dim: int
    way: Route | None
    factors: tuple[tuple[int, Tensor], ...]


class _Mover:
    """Makes the new part of one tensor after another."""

    def __init__(
        self, plan: Plan, parallel: TensorParallelPlan, after: Balanced, world: Postal
    ) -> None:
        self.plan, self.parallel, self.after, self.world = plan, parallel, after, world
        self.dims = {**plan.tensors, **parallel.tensors}
        self.folds: dict[str, list[Fold]] = {}
        for fold in plan.folds:
            self.folds.setdefault(fold.rows.tensor, []).append(fold)
        self._routes: dict[Dim, Route] = {}
        self._units = [after.units(rank) for rank in range(parallel.size)]
        self._cut = {axis.index for axis in plan.axes.values()}

    def touches(self, name: str) -> bool:
        """Whether the cut changes anything of a tensor, on any rank."""
        dims = self.dims.get(name, ())
        cut = any(axis.index in self._cut for dim in dims for axis in axes_of(dim))
        return cut or name in self.folds

    def moved(self, name: str, tensor: Tensor) -> Tensor:
        """The new part of a parameter or buffer."""
        way = self.way(name, tensor)
        new = self.along(tensor.detach(), way, tensor.shape, what=name)
        for dim, factors in way.factors:
            shape = [-1 if k == dim else 1 for k in range(new.dim())]
            new = new * factors.to(new.device, new.dtype).reshape(shape)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new

    def along(self, tensor: Tensor, way: _Way, shape: Sequence[int], *, what: str) -> Tensor:
        """The new part of what lies like a tensor of this shape, or is broadcast to it."""
        for k, own in enumerate(way.own):
            if own is not None and tensor.shape[k] == shape[k]:
                tensor = tensor.index_select(k, own.to(tensor.device))
        if way.way is not None and tensor.shape[way.dim] == shape[way.dim]:
            tensor = move_rows(tensor, way.way, self.world, what=what, dim=way.dim)
        return tensor

    def way(self, name: str, tensor: Tensor) -> _Way:
        """How a tensor gets its new part."""
        units = self._units[self.world.rank]
        dims = self.dims.get(name, ((),) * tensor.dim())
        split, own, along, way = split_of(self.parallel, name), list[Tensor | None](), -1, None
        for k, dim in enumerate(dims):
            if split is not None and k == split.dim:
                along, way = k, self._route(dim, split.held)
                own.append(None)
            else:
                cut = any(axis.index in units for axis in axes_of(dim))
                own.append(kept_indices(dim, units) if cut else None)
        return _Way(tuple(own), along, way, self._factors(name, tensor, dims))

    def _route(self, dim: Dim, held: Sequence[Tensor]) -> Route:
        if dim not in self._routes:
            wanted = [kept_indices(dim, units) for units in self._units]
            self._routes[dim] = route(held, wanted, self.world.rank)
        return self._routes[dim]

    def _factors(
        self, name: str, tensor: Tensor, dims: Sequence[Dim]
    ) -> tuple[tuple[int, Tensor], ...]:
        found = []
        for fold in self.folds.get(name, ()):
            dim = fold.rows.dim
            size = new_size(dims[dim], {}) if dims[dim] else tensor.shape[dim]
            factors = torch.ones(size, dtype=torch.float64)
            for start, stop in fold.rows.ranges:
                factors[start:stop] = fold.factor
            if dims[dim]:
                factors = factors[kept_indices(dims[dim], self._units[self.world.rank])]
            found.append((dim, factors))
        return tuple(found)


def _carry_(optimizer: Optimizer, old: nn.Parameter, new: Tensor, name: str, mover: _Mover) -> None:
    """Let the optimizer hold the new part, with its state."""
    held = False
    for group in optimizer.param_groups:
        held = held or any(p is old for p in group["params"])
        group["params"] = [new if p is old else p for p in group["params"]]
    if not held or old not in optimizer.state:
        return
    way, state = mover.way(name, old), optimizer.state.pop(old)
    for key in sorted(state):
        value = state[key]
        if isinstance(value, Tensor) and not (value.numel() == 1 and value.shape != old.shape):
            if value.ndim != old.ndim or any(
                mine not in (1, full) for mine, full in zip(value.shape, old.shape, strict=True)
            ):
                raise CutError(
                    f"optimizer state {key!r} of {name} has shape {tuple(value.shape)}, which is "
                    f"not that of its parameter {tuple(old.shape)}, so it cannot be cut along with "
                    "it; make a new optimizer from the cut model's parameters()"
                )
            state[key] = mover.along(value, way, old.shape, what=f"{key} of {name}")
    optimizer.state[new] = state


def _put_(model: nn.Module, old: Tensor, new: Tensor) -> None:
    for module in model.modules():
        for registry in (module._parameters, module._buffers):
            for name, tensor in registry.items():
                if tensor is old:
                    registry[name] = new  # type: ignore[assignment]
