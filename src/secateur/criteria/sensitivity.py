"""What the model's outputs lose when a group loses units, measured: for each group at a few depths
the layers that read it are made up as well as they can, and the model runs.

Between the measured depths the error rises as that of the readers does. From the errors and the
cost model come scores: the rise of the error for each part of the cost that a unit saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph, Group
from secateur.core.modes import evaluating
from secateur.core.world import ALONE, World
from secateur.cost.counted import CostModel
from secateur.criteria.divided import divided
from secateur.criteria.next_layers import GroupReader, readers_of
from secateur.criteria.removal import greedy_removal, without
from secateur.criteria.running import run_batch
from secateur.criteria.shares import Shares, repeatable
from secateur.graph.calls import tensors_in

DEPTHS = (0.2, 0.6)
"""Parts of a group that are taken out to see what the outputs lose."""
HELD = 4
"""Every fourth batch is held back for that: what seemed to be of no use elsewhere may be there."""
BATCHES = 4
"""So many batches are looked at."""
_FLOPS = 2e10
"""A core's float64 operations in a second, about: what runs and factorisations are compared by."""

Rise = Callable[[Tensor, Tensor], Tensor]


def errors_of_outputs(
    graph: Graph, model: nn.Module, data: Iterable[Any], rise: Rise, *, world: World = ALONE
) -> dict[str, Tensor]:
    """For each free group that a weight reads: per unit, what `rise` makes of the outputs' relative
    squared error and the saved share of the model's multiply-accumulates.

    world: ranks that divide the batches, then the groups. Raises: ScoreError when no weight reads
    any group, and for unsound data.
    """
    given = repeatable(data)
    batches = given.batches if isinstance(given, Shares) else given
    held = [k for k in range(len(batches)) if k % HELD == HELD - 1]
    others = [k for k in range(len(batches)) if k not in held]
    chosen = [batches[k] for k in (held or others)[:BATCHES]]
    rest = given.only(others) if isinstance(given, Shares) else [batches[k] for k in others]
    readers = readers_of(graph, model, rest, world=world)
    costs = CostModel(graph)
    saved = {group.id: _saved(group, costs) for group in graph.free if group.id in readers}
    groups = [group for group in graph.free if group.id in saved and float(saved[group.id][-1]) > 0]
    with evaluating(model), torch.no_grad():
        start = time.perf_counter()
        wanted = [_outputs(run_batch(model, batch)) for batch in chosen]
        runs_s = world.first(time.perf_counter() - start, what="seconds of a run")

        def errors_of(k: int) -> Tensor:
            group = groups[k]
            removal = greedy_removal([reader.reader for reader in readers[group.id]])
            measured = {}
            for depth in DEPTHS:
                count = max(1, round(depth * group.size))
                with _removed_(model, readers[group.id], removal.order_U[:count]):
                    measured[count] = _error(model, chosen, wanted)
            errors_U = between(removal.errors_U, measured)
            found_U = torch.empty(group.size, dtype=torch.float64)
            found_U[removal.order_U] = rise(errors_U, saved[group.id])
            return found_U

        found = divided(
            errors_of,
            [[group.size] for group in groups],
            costs=[_seconds(readers[group.id], runs_s) for group in groups],
            world=world,
            what="errors of outputs",
        )
    return {group.id: error_U for group, error_U in zip(groups, found, strict=True)}


def _seconds(readers: Sequence[GroupReader], runs_s: float) -> float:
    """About how long one group takes: the runs without its units, and the readers' factorisations
    and updates."""
    flops = 0.0
    for each in readers:
        features, outputs = each.reader.weight_FM.shape
        flops += (len(DEPTHS) + 1) * (4 * features**3 + 4 * features**2 * outputs)
    return len(DEPTHS) * runs_s + flops / _FLOPS


def _saved(group: Group, costs: CostModel) -> Tensor:
    """The share of the multiply-accumulates that goes with each number of units."""
    whole = costs.macs({})
    left = [costs.macs({group.axis.index: count}) for count in range(group.size - 1, -1, -1)]
    return 1 - torch.tensor(left, dtype=torch.float64) / whole


def between(local_U: Tensor, measured: Mapping[int, float]) -> Tensor:
    """The outputs' error after each number of units, from that of the readers and what was measured
    after some numbers.

    >>> between(torch.tensor([1.0, 2.0, 4.0]), {2: 10.0}).tolist()
    [5.0, 10.0, 20.0]
    """
    local_U = local_U.double()
    found_U = torch.empty_like(local_U)
    start, base, value = 0, 0.0, 0.0
    slope = 0.0
    for count, error in sorted(measured.items()):
        rise = float(local_U[count - 1]) - base
        slope = (error - value) / rise if rise > 0 else 0.0
        found_U[start:count] = value + slope * (local_U[start:count] - base)
        start, base, value = count, float(local_U[count - 1]), error
    found_U[start:] = value + max(slope, 0.0) * (local_U[start:] - base)
    return found_U


@contextmanager
def _removed_(model: nn.Module, readers: Sequence[GroupReader], units: Tensor) -> Iterator[None]:
    """The readers without some units, made up for; what they were comes back in the end."""
    before = [reader.use.weight.clone() for reader in readers]
    try:
        for each in readers:
            _write_(each, without(each.reader, units))
        yield
    finally:
        for each, weight in zip(readers, before, strict=True):
            each.use.weight.copy_(weight)


def _write_(each: GroupReader, weight_FM: Tensor) -> None:
    weight, window = each.use.weight, each.use.window
    if window is None:
        weight.copy_(weight_FM)
    else:
        own = torch.unflatten(weight, 0, (window.groups, -1))[each.number]
        own.copy_(weight_FM.T.reshape(own.shape))


def _error(model: nn.Module, batches: Sequence[Any], wanted: Sequence[Sequence[Tensor]]) -> float:
    """The mean over the outputs of their squared error, relative to their squared size."""
    lost = torch.zeros(len(wanted[0]), dtype=torch.float64)
    size = torch.zeros_like(lost)
    for batch, outputs in zip(batches, wanted, strict=True):
        for k, (found, dense) in enumerate(
            zip(_outputs(run_batch(model, batch)), outputs, strict=True)
        ):
            lost[k] += float((found - dense).square().sum(dtype=torch.float64))
            size[k] += float(dense.square().sum(dtype=torch.float64))
    return float((lost / size.clamp(min=torch.finfo(torch.float64).tiny)).mean())


def _outputs(out: Any) -> list[Tensor]:
    """What a model returns of numbers, but for single ones such as a loss."""
    found = [leaf for leaf in tensors_in(out) if leaf.dim() and leaf.is_floating_point()]
    if not found:
        raise ScoreError("the model returns no tensor of floating-point numbers to compare")
    return found
