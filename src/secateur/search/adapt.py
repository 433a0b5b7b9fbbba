"""Allocation by trying: which group gives way next is found out by cutting it.

From the whole model on, each step takes a part of what is still too much of the budget from one
group. Every group is tried: the model cut so far, and that group narrower until it has saved the
part, is made, fitted and judged by its loss; the group that costs least for what it saves gives
way. What scores of single groups cannot tell, how groups carry each other's losses and what can be
won back, is thereby measured. A group that was dear is looked at again only where it might be the
cheapest by now, for what a group costs hardly ever falls as others shrink.

Source: Yang et al., NetAdapt, ECCV 2018, algorithm 1, arXiv 1804.03230. Deviations: any budget that
a plan has; each candidate is cut from the whole model and fitted by least squares; groups that
cannot be the cheapest are not tried anew (lazy greedy, Minoux 1978).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateur.core.budget import Budget
from secateur.core.copies import copied
from secateur.core.dims import Counts
from secateur.core.errors import BudgetError, ScoreError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.cost.counted import CostModel
from secateur.cut import cut
from secateur.oneshot import reconstruct_
from secateur.select.conflict import explain_conflict
from secateur.select.constraints import Constraints
from secateur.select.plan import assemble
from secateur.select.problem import Problem, make_problem
from secateur.select.stairs import Stairs, stairs_of
from secateur.train.evaluate import mean_loss
from secateur.train.objective import LossFn

Judge = Callable[[Plan], float]
"""The loss of the model that a plan makes, lower is better."""
Tell = Callable[[str, float, float], None]
"""Told the groups that give way, the share of the budget's cost that is left, and the loss."""
STEP = 0.08
"""What a step takes of the cost that is left, about."""
WORST = 1e6
"""A loss that is not a number counts as this one."""
ROUNDING = 1e-9


def fitted_loss(
    model: nn.Module,
    *,
    data: Iterable[Any],
    held: Iterable[Any],
    loss_fn: LossFn | None = None,
    recover: Callable[[nn.Module], object] | None = None,
) -> Judge:
    """Judge a plan by the loss on `held` of the model that it cuts, fitted to the outputs of the
    layers before on `data` (see `reconstruct_`) and, where `recover` is given, trained by it."""
    batches, judged = list(data), list(held)

    def loss(plan: Plan) -> float:
        small = cut(model, plan)
        fitted = copied(small)
        with suppress(ScoreError):  # what is left overflows on this data: nothing to fit to
            small = reconstruct_(fitted, model, plan=plan, data=batches)
        if recover is not None:
            recover(small)
        return mean_loss(small, judged, loss_fn=loss_fn)

    return loss


@dataclass
class Adapter:
    """Plans of one graph by trying; what was tried for one budget is known for the next.

    judge: see `Judge`. constraints: as for `plan`, but for what says how much goes. step: the part
    of the cost that a step takes. tried: losses by the counts that were tried.
    """

    graph: Graph
    scores: Scores
    judge: Judge
    constraints: Constraints = field(default_factory=Constraints)
    step: float = STEP
    tell: Tell | None = None
    tried: dict[tuple[tuple[int, int], ...], float] = field(default_factory=dict)

    def plan(
        self,
        *,
        budget: str | Budget,
        costs: CostModel | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Which units stay so that the budget is met, each group as wide as trying says.

        Raises: BudgetError when the budget cannot be met, naming the rule in the way.
        """
        limits = Budget.parse(budget)
        problem = make_problem(self.graph, self.scores, limits, self.constraints, costs=costs)
        descent = _Descent(problem, stairs_of(problem), self)
        descent.walk()
        return self.made(problem, descent.counts, settings)

    def made(
        self, problem: Problem, counts: Counts, settings: Mapping[str, Any] | None = None
    ) -> Plan:
        """The plan in which groups keep so many units."""
        said = {**(settings or {}), "allocation": "adapt"}
        return assemble(problem, problem.solve(counts), said)

    def loss(self, problem: Problem, counts: Counts) -> float:
        """What the judge says of such counts."""
        key = tuple(sorted(counts.items()))
        if key not in self.tried:
            found = self.judge(self.made(problem, counts))
            self.tried[key] = min(found, WORST) if math.isfinite(found) else WORST
        return self.tried[key]


@dataclass(frozen=True, order=True)
class _Step:
    """One group's next step. rate: loss for what it saves. at: how many steps were taken when the
    loss was found, -1 for never."""

    rate: float
    index: int
    stop: int
    rise: float
    at: int


class _Descent:
    """Where all groups stand. Excess is how far the cost is above the budget, in logarithms summed
    over the limits: zero where it is met."""

    def __init__(self, problem: Problem, stairs: tuple[Stairs, ...], adapter: Adapter) -> None:
        self._problem, self._stairs, self._adapter = problem, stairs, adapter
        self._stops = [0] * len(stairs)
        self.counts: dict[int, int] = dict(problem.whole)
        self._excess = self._excess_of(self.counts)
        self._loss = 0.0 if self._excess <= 0 else adapter.loss(problem, self.counts)
        self._rises: dict[int, float] = {}

    def walk(self) -> None:
        """Down to the budget. Raises: BudgetError where there are no more steps before."""
        taken = 0
        while self._excess > 0:
            step = self._cheapest(taken)
            if step is None:
                floor = self._problem.possible(
                    {axis: n for each in self._stairs for axis, n in each.counts[-1].items()}
                )
                raise BudgetError(explain_conflict(self._problem, floor))
            self._take(step)
            taken += 1

    def _cheapest(self, taken: int) -> _Step | None:
        """The next step of the group that costs least for what it saves, tried just now."""
        heap = [step for k in range(len(self._stairs)) if (step := self._promised(k, taken))]
        heapq.heapify(heap)
        while heap:
            step = heapq.heappop(heap)
            if step.at == taken:
                return step
            counts = self._after(step.index, step.stop)
            rise = self._adapter.loss(self._problem, counts) - self._loss
            self._rises[step.index] = rise
            rate = rise / (self._excess - self._excess_of(counts))
            heapq.heappush(heap, _Step(rate, step.index, step.stop, rise, taken))
        return None

    def _promised(self, index: int, taken: int) -> _Step | None:
        """A group's next step as far as is known: at no less than its last rise. The first stop
        that saves what a step should, the one that saves most where none does."""
        stairs, stop = self._stairs[index], self._stops[index]
        wanted = min(self._excess, -math.log1p(-self._adapter.step))
        saved, target = 0.0, stop
        for further in range(stop + 1, len(stairs.counts)):
            gain = self._excess - self._excess_of(self._after(index, further))
            if gain > saved + ROUNDING:
                saved, target = gain, further
            if gain >= wanted - ROUNDING:
                break
        if target == stop:
            return None
        rise = self._rises.get(index, -math.inf)
        return _Step(rise / saved, index, target, rise, -1)

    def _take(self, step: _Step) -> None:
        self.counts = self._after(step.index, step.stop)
        self._stops[step.index] = step.stop
        self._excess = self._excess_of(self.counts)
        self._loss += step.rise
        if self._adapter.tell is not None:
            axes = self._stairs[step.index].counts[step.stop]
            ids = [g.id for g in self._problem.graph.groups if g.axis.index in axes]
            self._adapter.tell(", ".join(ids), self._problem.share(self.counts), self._loss)

    def _after(self, index: int, stop: int) -> dict[int, int]:
        return {**self.counts, **self._stairs[index].counts[stop]}

    def _excess_of(self, counts: Counts) -> float:
        problem = self._problem
        assert problem.budget is not None
        cost, found = problem.costs.cost(counts), 0.0
        for limit in problem.budget.limits:
            over = max(limit.value(cost), 1e-12) / max(limit.allowed(problem.dense), 1e-12)
            found += max(0.0, math.log(over))
        return found
