"""A cut of a model whose parameters the ranks hold in shards of rows, as FSDP2 does.

No parameter is gathered. Each rank keeps the kept rows among its own, slices its other dimensions,
and the rows are balanced again over the ranks: only those that change their rank are sent. The
optimizer's state goes the same way. What was is let go a parameter at a time, so that a rank holds
about its shard and one parameter's part besides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import LBFGS, Optimizer

from secateur.core.depth import renumbered, within
from secateur.core.errors import CutError, EngineError
from secateur.core.fingerprint import named_tensors
from secateur.core.plan import Plan
from secateur.core.scales import Fold
from secateur.cut.apply import apply_architecture_, kept_of
from secateur.engines.redistribute import Postal, move_rows, route


def cut_sharded(
    model: nn.Module,
    plan: Plan,
    *,
    empty: nn.Module,
    shard: Callable[[nn.Module], object],
    world: Postal,
    optimizer: Optimizer | None = None,
) -> nn.Module:
    """The cut model, sharded again; `model` is used up, and the optimizer holds the new parameters.

    empty: the whole model as it was before it was sharded, on the meta device; it becomes the
    result. shard: shards a model in place, with `fully_shard`. world: of the ranks that share the
    rows: the mesh's sharding dimension. Called by every rank.
    Raises: PlanMismatchError when `empty` is another model than the plan's; EngineError for
    parameters that are not sharded by rows alone; CutError for state that cannot be cut.
    """
    if isinstance(optimizer, LBFGS):
        raise CutError(
            "LBFGS keeps one flat history of all parameters, which cannot be cut; make a new LBFGS "
            "from the cut model's parameters()"
        )
    apply_architecture_(empty, plan)
    shard(empty)
    places = dict(named_tensors(empty))
    work = _Work(plan, world)
    new: dict[str, Tensor] = {}
    done: dict[Tensor, Tensor] = {}
    for name, old in list(named_tensors(model)):
        if within(name, plan.removed):
            continue
        target = renumbered(name, plan.taken_out)
        if old not in done:
            done[old] = work.moved(name, old, places[target])
            if optimizer is not None and isinstance(old, nn.Parameter):
                _carry_(optimizer, old, done[old], name, work)
            _let_go_(old)
        new[target] = done[old]
    if optimizer is not None:
        _drop_(optimizer, [old for old in _parameters(model) if old not in done])
    _assign_(empty, new)
    for mine, theirs in zip(empty.modules(), _following(model, plan), strict=False):
        mine.training = theirs.training
    return empty


@dataclass
class _Work:
    """Makes the new part of one tensor after another."""

    plan: Plan
    world: Postal

    def __post_init__(self) -> None:
        self.kept = kept_of(self.plan)

    def moved(self, name: str, old: Tensor, place: Tensor) -> Tensor:
        """The new part of a parameter or buffer; place: where it will stand, without memory."""
        with torch.no_grad():
            new = self.part(name, old.detach(), place, what=name)
            for fold in self.plan.folds:
                if fold.rows.tensor == name:
                    new *= self._factors(fold, old, place).to(new.dtype)
        whole = _like(new, place)
        if isinstance(old, nn.Parameter):
            return nn.Parameter(whole, requires_grad=old.requires_grad)
        return whole

    def part(self, name: str, old: Tensor, place: Tensor, *, what: str) -> Tensor:
        """What this rank will hold of what lies as a parameter does, its state included."""
        kept = self.kept(name) if name in self.plan.tensors else (None,) * old.dim()
        local = old.to_local() if isinstance(old, DTensor) else old
        for k, own in enumerate(kept):
            if own is not None and (k or not isinstance(old, DTensor)):
                local = local.index_select(k, own.to(local.device))
        if isinstance(old, DTensor) and old.dim() and kept[0] is not None:
            way = route(self._held(old), self._wanted(place, kept[0]), self.world.rank)
            return move_rows(local, way, self.world, what=what)
        return local.clone()  # what it lay in is let go

    def _held(self, old: Tensor) -> list[Tensor]:
        """The rows of every rank."""
        rows = _rows(old.shape[0], self.world.size)
        assert isinstance(old, DTensor)
        _check_rows(old, rows[self.world.rank])
        return [torch.arange(own.start, own.stop) for own in rows]

    def _wanted(self, place: Tensor, kept: Tensor) -> list[Tensor]:
        return [kept[own.start : own.stop] for own in _rows(place.shape[0], self.world.size)]

    def _factors(self, fold: Fold, old: Tensor, place: Tensor) -> Tensor:
        """Of what this rank will hold, along the fold's dimension."""
        dim = fold.rows.dim
        factors = torch.ones(old.shape[dim], dtype=torch.float64)
        for start, stop in fold.rows.ranges:
            factors[start:stop] = fold.factor
        kept = self.kept(fold.rows.tensor)[dim] if fold.rows.tensor in self.plan.tensors else None
        factors = factors if kept is None else factors[kept]
        if dim == 0 and isinstance(place, DTensor):
            own = _rows(place.shape[0], self.world.size)[self.world.rank]
            factors = factors[own.start : own.stop]
        return factors.reshape([-1 if k == dim else 1 for k in range(old.dim())])


def _rows(count: int, size: int) -> list[range]:
    """The rows of each rank: as torch chunks them, the last ranks with fewer or none.

    >>> _rows(5, 4)
    [range(0, 2), range(2, 4), range(4, 5), range(5, 5)]
    """
    height = -(-count // size)
    ends = [min(rank * height, count) for rank in range(size + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def _check_rows(old: DTensor, own: range) -> None:
    split = [placement for placement in old.placements if not isinstance(placement, Replicate)]
    by_rows = len(split) == 1 and type(split[0]) is Shard and split[0].dim == 0
    if not by_rows or old.to_local().shape[0] != len(own):
        raise EngineError(
            f"a parameter of shape {tuple(old.shape)} lies as {old.placements} on its mesh; only "
            "shards of rows over the given ranks can be cut in place. Gather the model, cut it and "
            "shard it again"
        )


def _like(local: Tensor, place: Tensor) -> Tensor:
    """A rank's part as what stands in the sharded model."""
    if not isinstance(place, DTensor):
        return local
    return DTensor.from_local(
        local,
        place.device_mesh,
        place.placements,
        run_check=False,
        shape=place.shape,
        stride=place.stride(),
    )


def _carry_(optimizer: Optimizer, old: nn.Parameter, new: Tensor, name: str, work: _Work) -> None:
    """Let the optimizer hold the new parameter, with its state."""
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state: dict[str, Any] | None = optimizer.state.pop(old, None)
    if state is None:
        return
    for key in sorted(state):
        value = state[key]
        if isinstance(value, Tensor) and value.shape == old.shape:
            if isinstance(value, DTensor) and isinstance(old, DTensor):
                value = value.redistribute(old.device_mesh, old.placements)
            state[key] = _like(work.part(name, value, new, what=f"{key} of {name}"), new)
            _let_go_(value)
        elif isinstance(value, Tensor) and value.numel() > 1:
            raise CutError(
                f"optimizer state {key!r} of {name} has shape {tuple(value.shape)}, which is not "
                f"that of its parameter {tuple(old.shape)}, so it cannot be cut along with it; "
                "make a new optimizer from the cut model's parameters()"
            )
    optimizer.state[new] = state


def _drop_(optimizer: Optimizer, gone: Sequence[nn.Parameter]) -> None:
    """Parameters of removed blocks, and their state."""
    away = set(gone)
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p not in away]
    for parameter in away:
        optimizer.state.pop(parameter, None)


def _parameters(model: nn.Module) -> list[nn.Parameter]:
    return [tensor for _, tensor in named_tensors(model) if isinstance(tensor, nn.Parameter)]


def _let_go_(old: Tensor) -> None:
    """Give a sharded tensor's memory back; what is not sharded may be shared with others."""
    if isinstance(old, DTensor):
        old.to_local().untyped_storage().resize_(0)


def _assign_(model: nn.Module, new: dict[str, Tensor]) -> None:
    """Put the tensors in their places; tied ones are one object under each name."""
    kept = model.state_dict(keep_vars=True).keys()
    model.load_state_dict({name: new[name] for name in kept}, assign=True)
    for name, tensor in new.items():
        if name not in kept:  # a buffer that no state dict has
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = tensor


def _following(model: nn.Module, plan: Plan) -> list[nn.Module]:
    """The modules that stay, in the order of the cut model's."""
    return [module for name, module in model.named_modules() if not within(name, plan.removed)]
