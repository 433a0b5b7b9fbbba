"""Work of known cost that ranks divide among them, so that each has every result.

For work that does not depend on the batches any more: factorisations of a layer's moments, runs of
a model without a group's units. The costliest comes first. Results are sent as they are, bit by
bit, so it does not matter who made them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateur.core.world import World
from secateur.criteria.shares import split


def divided(
    work: Callable[[int], Tensor],
    shapes: Sequence[Sequence[int]],
    *,
    costs: Sequence[float],
    world: World,
    what: str,
) -> list[Tensor]:
    """The float64 results of ``work(k)`` for every k, each computed by one rank, on the CPU.

    shapes: of the results. costs: in any unit.

    >>> from secateur.core.world import ALONE
    >>> double = lambda k: torch.tensor([2.0 * k])
    >>> [r.tolist() for r in divided(double, [[1]] * 3, costs=[1] * 3, world=ALONE, what="doubles")]
    [[0.0], [2.0], [4.0]]
    """
    if world.size == 1:
        return [_result(work, k) for k in range(len(shapes))]
    sizes = [math.prod(shape) for shape in shapes]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    # integers: zeros of all other ranks are added, which would spoil a float's minus zero
    every = torch.zeros(sum(sizes), dtype=torch.int64)
    for k in split(costs, [1.0] * world.size)[world.rank]:
        own = _result(work, k).contiguous().reshape(-1).view(torch.int64)
        every[starts[k] : starts[k] + sizes[k]] = own
    world.sum_([every], what=what)
    parts = torch.split(every, sizes)
    return [
        part.view(torch.float64).reshape(tuple(shape))
        for part, shape in zip(parts, shapes, strict=True)
    ]


def _result(work: Callable[[int], Tensor], k: int) -> Tensor:
    return work(k).detach().to("cpu", torch.float64)
