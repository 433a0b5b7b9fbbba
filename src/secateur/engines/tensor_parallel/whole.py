"""Back from the ranks' models to the whole one, a tensor at a time.

The rank's part of each shared tensor goes where the rank's cut took it from, so this is the inverse
of the cut. One tensor is whole at a time, on every rank or on one; the same way goes the state of
an optimizer. `fill_` is the way in: a rank reads its part of whole tensors that lie in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.core.dims import axes_of, dim_size, kept_indices
from secateur.cut.apply import kept_of
from secateur.cut.slicing import Slicer
from secateur.engines.redistribute import Postal, Route, move_rows, route
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.masks.dense import dense_tensors


@dataclass(frozen=True, slots=True)
class Split:
    """How a tensor is shared out: its dimension, and the indices of each rank along it."""

    dim: int
    held: tuple[Tensor, ...]


def split_of(plan: TensorParallelPlan, name: str) -> Split | None:
    """How one of the whole model's tensors is shared out; None where every rank has all of it."""
    shared = {axis.index for axis in plan.axes.values()}
    for dim, types in enumerate(plan.tensors.get(name, ())):
        if any(axis.index in shared for axis in axes_of(types)):
            units = [
                {plan.axes[id].index: torch.tensor(plan.units(id, rank)) for id in plan.bounds}
                for rank in range(plan.size)
            ]
            return Split(dim, tuple(kept_indices(types, own) for own in units))
    return None


def whole_tensors(
    model: nn.Module, plan: TensorParallelPlan, world: Postal, *, to: int | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and persistent buffer of the whole model, under each name once, one after
    another; with `to` on that rank alone, and empty on the others. Called by every rank."""
    for name, tensor in _distinct(model):
        yield name, _joined(tensor.detach(), name, plan, world, to)


def whole_state(
    optimizer: Optimizer,
    model: nn.Module,
    plan: TensorParallelPlan,
    world: Postal,
    *,
    to: int | None = None,
) -> Iterator[tuple[str, str, Tensor | float]]:
    """The state of an optimizer of the whole model: a parameter's name, the state's, its value.
    As `whole_tensors`."""
    for name, parameter in _distinct(model):
        if isinstance(parameter, nn.Parameter) and parameter in optimizer.state:
            for key, value in sorted(optimizer.state[parameter].items()):
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value = _joined(value, name, plan, world, to)
                yield name, key, value


def fill_(
    model: nn.Module, plan: TensorParallelPlan, rank: int, read: Callable[[str], Tensor]
) -> None:
    """Give a rank's model its part of every tensor that `read` finds by name in the whole model.

    With a model that was made and parallelized on the meta device, and then given memory with
    `to_empty`, no rank ever holds more than one whole tensor.
    """
    for name, tensor in _distinct(model):
        with torch.no_grad():
            tensor.copy_(part_of(read(name), name, plan, rank))


def part_of(tensor: Tensor, name: str, plan: TensorParallelPlan, rank: int) -> Tensor:
    """What a rank holds of a tensor of the whole model."""
    if name not in plan.tensors:
        return tensor
    return Slicer()(tensor, kept_of(plan.rank_plan(rank))(name))


def _joined(
    tensor: Tensor, name: str, plan: TensorParallelPlan, world: Postal, to: int | None
) -> Tensor:
    split = split_of(plan, name)
    if split is None:
        return tensor if to in (None, world.rank) else tensor.new_empty(0)
    way = _together(dim_size(plan.tensors[name][split.dim]), split, world.rank, to)
    whole = move_rows(tensor, way, world, what=name, dim=split.dim)
    return whole if to in (None, world.rank) else whole.new_empty(0)


def _together(size: int, split: Split, rank: int, to: int | None) -> Route:
    everything, nothing = torch.arange(size), torch.arange(0)
    wanted = [everything if to in (None, r) else nothing for r in range(len(split.held))]
    return route(split.held, wanted, rank)


def _distinct(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, tied ones under their first name; masked ones by the name
    that they have without a mask."""
    state: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    kept = {id(tensor) for tensor in state.values()}
    for name, tensor in dense_tensors(model).items():
        if id(tensor) in kept:
            kept.remove(id(tensor))
            yield name, tensor
