"""The order in which groups give up units: always where the loss for what is saved is smallest.

Groups go down their flights of stairs, see `stairs`. What a step saves depends on where the other
groups stand, so it is asked of the cost model again whenever it might be the next to be taken. The
path goes from the whole model to the smallest and does not depend on how much one limit allows, so
that a smaller budget only goes further on it.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secateur.core.budget import Limit
from secateur.core.dims import Counts
from secateur.select.stairs import Float64Array, Stairs

if TYPE_CHECKING:
    from secateur.select.problem import Problem

AHEAD = (1, 2, 4, 8, 16)
"""How many stops at once a step may take, where a device's time moves in leaps."""
REFRESH = 64
"""After so many steps every group's next one is looked at anew."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Path:
    """steps: which stairs went to which stop, in order. removed: units gone after each step.
    loss_when_met: what is lost where the budget is first met; infinite where it never is."""

    steps: tuple[tuple[int, int], ...]
    removed: tuple[int, ...]
    stairs: int
    units: int
    loss_when_met: float

    def stops_at(self, level: float) -> list[int]:
        """The stop of each stairs once the fraction `level` of all units is gone, at most."""
        taken = bisect_right(self.removed, level * self.units + ROUNDING)
        if level >= 1.0 - ROUNDING:
            taken = len(self.steps)
        stops = [0] * self.stairs
        for index, stop in self.steps[:taken]:
            stops[index] = stop
        return stops


def descend(
    problem: Problem,
    stairs: Sequence[Stairs],
    limits: Sequence[Limit],
    weights: Sequence[float],
    *,
    only_until_met: bool = False,
) -> Path:
    """The path when the limits weigh as given; one that is met weighs nothing beside the others."""
    return _Descent(problem, stairs, limits, weights).walk(only_until_met=only_until_met)


class _Descent:
    """Where all stairs stand, and what the next step of each would be."""

    def __init__(
        self,
        problem: Problem,
        stairs: Sequence[Stairs],
        limits: Sequence[Limit],
        weights: Sequence[float],
    ) -> None:
        self._problem, self._stairs, self._limits = problem, stairs, limits
        self._allowed = [limit.allowed(problem.dense) for limit in limits]
        whole = np.array([max(limit.value(problem.dense), 1e-12) for limit in limits])
        self._weights, self._equally = np.array(weights) / whole, 1.0 / whole
        self._counts = dict(problem.whole)
        self._stops = [0] * len(stairs)
        self._set_now(self._values(self._counts))

    def walk(self, *, only_until_met: bool) -> Path:
        """Down to the last stop of all stairs, or to where the budget is met."""
        steps: list[tuple[int, int]] = []
        removed: list[int] = []
        gone, met = 0, math.inf
        if self._met:
            met = self._loss()
        for index, stop in self._steps():
            gone += (
                self._stairs[index].removed[stop] - self._stairs[index].removed[self._stops[index]]
            )
            before = self._active
            self._stops[index] = stop
            self._counts |= self._stairs[index].counts[stop]
            self._set_now(self._values(self._counts))
            steps.append((index, stop))
            removed.append(gone)
            if self._met and met == math.inf:
                met = self._loss()
                if only_until_met:
                    break
            self._stale = self._active != before
        units = sum(each.removed[-1] for each in self._stairs)
        whole = sum(group.size for bundle in self._problem.bundles for group in bundle.groups)
        return Path(tuple(steps), tuple(removed), len(self._stairs), max(whole, units), met)

    def _steps(self) -> Iterator[tuple[int, int]]:
        """The cheapest next step, again and again. What was worked out earlier is taken as a
        promise, and looked at again before it is kept."""
        self._stale = False
        heap: list[tuple[float, float, int, int]] = []
        taken = REFRESH
        while True:
            if taken >= REFRESH or self._stale or (heap and math.isinf(heap[0][0])):
                heap = [found for k in range(len(self._stairs)) if (found := self._next(k))]
                heapq.heapify(heap)
                taken = 0
            if not heap:
                return
            index = heap[0][2]
            found = self._next(index)
            if found is None:
                heapq.heappop(heap)
                continue
            heapq.heapreplace(heap, found)
            if heap[0] is found:
                yield index, found[3]
                taken += 1

    def _next(self, index: int) -> tuple[float, float, int, int] | None:
        """The best step of one stairs, None at the bottom: loss for what is saved (infinite where
        nothing is), what tells equals apart, which stairs, to which stop."""
        stairs, stop = self._stairs[index], self._stops[index]
        targets = [stop + far for far in AHEAD if stop + far < len(stairs.counts)]
        best: tuple[float, float, int, int] | None = None
        for target in targets:
            lost = stairs.loss[target] - stairs.loss[stop]
            values = self._values({**self._counts, **stairs.counts[target]})
            saved = float(self._active_weights @ np.minimum(self._now - values, self._excess))
            pays = saved > ROUNDING
            step = (lost / saved if pays else math.inf, -saved if pays else lost, index, target)
            best = step if best is None or step < best else best
        return best

    def _values(self, counts: Counts) -> Float64Array:
        cost = self._problem.costs.cost(counts)
        return np.array([limit.value(cost) for limit in self._limits])

    def _set_now(self, values: Float64Array) -> None:
        self._now = values
        unmet = [value > allowed for value, allowed in zip(values, self._allowed, strict=True)]
        self._met = not any(unmet)
        # what is met needs no more saving; where all are, the path goes on for smaller budgets
        self._active = tuple(unmet) if len(unmet) > 1 and any(unmet) else (True,) * len(unmet)
        # saving more than is needed is worth nothing
        over = values - np.array(self._allowed)
        self._excess = np.where(over > 0, over, np.inf)
        active = self._weights * np.array(self._active)
        self._active_weights = active if active.any() else self._equally * np.array(self._active)

    def _loss(self) -> float:
        return sum(each.loss[stop] for each, stop in zip(self._stairs, self._stops, strict=True))
