"""Knapsack: the units that cost the model least for what they save go first.

Each group gives up units where the loss that they are worth, for each part of the budget's costs
that goes with them, is smallest: multiply-accumulates, bytes or milliseconds, as the budget says,
with what the other groups have already lost counted in. Where a device takes as long for 60
channels as for 64, giving up four saves nothing, and a wider step is looked at.

Scores must be of one measure for all groups: what `sensitivities` measured, else a change of the
loss such as "taylor" with ``normalise="none"``, else scores that a group's mean has made
comparable.

Source: the greedy rule of Dantzig 1957 for the knapsack; latency as its weight: Shen et al., HALP,
NeurIPS 2022, section 3, arXiv 2110.10811. Deviation: costs are asked anew as groups shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from secateur.core.budget import Budget
from secateur.select._knapsack_path import Path, descend
from secateur.select.global_ import ladder as threshold
from secateur.select.stairs import Stairs, stairs_of

if TYPE_CHECKING:
    from secateur.select.problem import Problem

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much the first of two limits weighs beside the second, tried in turn."""


def ladder(scores: Mapping[str, Tensor]) -> Callable[[float], dict[str, int]]:
    """Where nothing is known of costs: each unit costs the same."""
    return threshold(scores)


def costed_ladder(problem: Problem) -> Callable[[float], dict[str, int]]:
    """Each group's units once the fraction ``level`` of all units is gone, the cheapest first.

    Of several limits each is weighed in turn, and some together; the weights that meet all of them
    with the least loss are taken.
    """
    stairs = stairs_of(problem)
    limits = (problem.budget or Budget.parse("macs=100%")).limits
    tried = _weights(len(limits))

    def lost(weights: tuple[float, ...]) -> float:
        return descend(problem, stairs, limits, weights, only_until_met=True).loss_when_met

    best = tried[0] if len(tried) == 1 else min(tried, key=lost)
    path = descend(problem, stairs, limits, best)
    return lambda level: _counts(problem, stairs, path, level)


def _counts(
    problem: Problem, stairs: tuple[Stairs, ...], path: Path, level: float
) -> dict[str, int]:
    counts = dict(problem.whole)
    for each, stop in zip(stairs, path.stops_at(level), strict=True):
        counts |= each.counts[stop]
    return {
        group.id: counts[group.axis.index] for bundle in problem.bundles for group in bundle.groups
    }


def _weights(limits: int) -> list[tuple[float, ...]]:
    """What the limits weigh: one alone, two in some blends, more each alone and all together.

    >>> len(_weights(1)), len(_weights(2)), len(_weights(3))
    (1, 5, 4)
    """
    if limits == 1:
        return [(1.0,)]
    if limits == 2:
        return [(blend, 1.0 - blend) for blend in BLENDS]
    alone = [tuple(float(k == n) for k in range(limits)) for n in range(limits)]
    return [*alone, (1.0,) * limits]
