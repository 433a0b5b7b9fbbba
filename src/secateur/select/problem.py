"""One selection problem: what may move, what it costs, and whether counts meet the budget.

Counts are dictionaries from axis index to units kept, as in `core.dims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from secateur.core.budget import Budget
from secateur.core.cost import Cost
from secateur.core.dims import Axis, Counts, dim_size
from secateur.core.errors import BudgetError
from secateur.core.expressions import Relation, Size
from secateur.core.graph import Graph
from secateur.core.lookup import find
from secateur.core.plan import Scores
from secateur.core.sensitivities import Sensitivities
from secateur.cost.counted import CostModel
from secateur.select.bundles import Bundle, make_bundles
from secateur.select.constraints import TYING, Constraints
from secateur.select.counts import CountSolver, Solution
from secateur.select.normalise import normalise

Ladder = Callable[[float], dict[str, int]]


@dataclass(frozen=True)
class Problem:
    """Everything a search needs to know.

    scores: as given. ranked: what the units of the groups that may move are worth, in one measure:
    normalised scores, or what was measured of the loss. reference: what a budget's
    shares refer to where that is not the graph's own cost, because blocks are gone from it.
    """

    graph: Graph
    costs: CostModel
    budget: Budget | None
    constraints: Constraints
    scores: Scores
    bundles: tuple[Bundle, ...]
    ranked: Mapping[str, Tensor]
    notes: tuple[str, ...]
    reference: Cost | None = None

    @cached_property
    def dense(self) -> Cost:
        """Cost of the whole model."""
        return self.costs.cost({}) if self.reference is None else self.reference

    @cached_property
    def whole(self) -> dict[int, int]:
        """The most units that the rules allow of every group that may move: all, mostly."""
        return {
            group.axis.index: bundle.allowed[-1]
            for bundle in self.bundles
            for group in bundle.groups
        }

    def wanted(self, level: float) -> dict[int, int]:
        """What the selector asks for at a level, within the rules."""
        asked = self._ladder(level)
        return {
            group.axis.index: bundle.at_least(
                max(bundle.asked, *(asked[g.id] for g in bundle.groups))
            )
            for bundle in self.bundles
            for group in bundle.groups
        }

    def solve(self, wanted: Counts, *, asked: Counts | None = None) -> Solution:
        """The nearest counts that the model's own arithmetic and the rules allow, with fields.

        asked: what the notes compare the counts with, where it is not `wanted`.
        Raises: BudgetError that names the rules, where nothing satisfies them all.
        """
        with self._naming_rules():
            return self._solver.solve({**self.whole, **wanted}, asked=asked)

    def possible(self, wanted: Counts) -> dict[int, int]:
        """The counts of `solve` alone, for every axis that may move."""
        with self._naming_rules():
            return {**self.whole, **self._solver.counts({**self.whole, **wanted})}

    def fits(self, counts: Counts) -> bool:
        """Whether the budget is met; without one, never: pruning goes as far as the rules allow."""
        return self.budget is not None and self.budget.met(self.costs.cost(counts), self.dense)

    def room(self, counts: Counts) -> float:
        """How much of the budget is left, relative to the whole model; the scarcest metric's."""
        assert self.budget is not None
        cost = self.costs.cost(counts)
        return min(
            (limit.allowed(self.dense) - limit.value(cost)) / max(limit.value(self.dense), 1)
            for limit in self.budget.limits
        )

    def share(self, counts: Counts) -> float:
        """Cost relative to the whole model, summed over the budget's metrics."""
        assert self.budget is not None
        cost = self.costs.cost(counts)
        metrics = {limit.metric: limit for limit in self.budget.limits}
        return sum(
            limit.value(cost) / max(limit.value(self.dense), 1) for limit in metrics.values()
        )

    @cached_property
    def _ladder(self) -> Ladder:
        selector = find("secateur.select", self.constraints.selector, kind="selector")
        costed: Callable[[Problem], Ladder] | None = vars(selector).get("costed_ladder")
        ladder: Ladder = selector.ladder(self.ranked) if costed is None else costed(self)
        return ladder

    @cached_property
    def _solver(self) -> CountSolver:
        """A share that was asked for is insisted on; a budget only asks for the sum."""
        return CountSolver(
            self.graph,
            self.whole,
            allowed=self._allowed,
            relations=self._equalities,
            weights=self._reach,
            insist=self.budget is None,
        )

    @contextmanager
    def _naming_rules(self) -> Iterator[None]:
        try:
            yield
        except BudgetError as error:
            rules = [rule for rule in self.constraints.relaxed() if rule.startswith(TYING)]
            if not rules:
                raise
            raise BudgetError(
                f"{', '.join(rules)} cannot hold: {error}; relax {' or '.join(rules)}"
            ) from None

    @cached_property
    def _allowed(self) -> dict[int, tuple[int, ...]]:
        return {
            group.axis.index: bundle.allowed
            for bundle in self.bundles
            for group in bundle.groups
            if len(bundle.allowed) < bundle.size
        }

    @cached_property
    def _reach(self) -> dict[int, float]:
        """How much of the model each axis runs through, in elements of its members.

        Where sizes are tied, the residual width of a whole stage should not give way to the heads
        of its single layers.
        """
        elements = {
            name: math.prod(dim_size(dim) for dim in tensor.dims)
            for name, tensor in self.graph.tensors.items()
        }
        return {
            group.axis.index: float(sum(elements[member.tensor] for member in group.members))
            for bundle in self.bundles
            for group in bundle.groups
        }

    @cached_property
    def _equalities(self) -> tuple[Relation, ...]:
        return tuple(
            Relation("eq", _size(bundle.groups[0].axis), _size(other.axis), where="equal")
            for bundle in self.bundles
            for other in bundle.groups[1:]
        )

    @cached_property
    def tied(self) -> tuple[frozenset[int], ...]:
        """Sets of axes whose counts the solver ties together; the rest move bundle by bundle."""
        return self._solver.tied


def _size(axis: Axis) -> Size:
    return Size((axis,))


def make_problem(
    graph: Graph,
    scores: Scores,
    budget: Budget | None,
    constraints: Constraints,
    *,
    costs: CostModel | None = None,
    sensitivities: Sensitivities | None = None,
) -> Problem:
    """Check the options and compile the problem. costs: counted ones where None. sensitivities:
    what units are worth; normalised scores where None.

    Raises: ValueError and BudgetError for options that say nothing or cannot be counted;
    PlanMismatchError for sensitivities of other groups.
    """
    find("secateur.select", constraints.selector, kind="selector")
    if budget is None and not constraints.has_target:
        raise ValueError(
            "nothing says how much to remove; give a budget such as budget='macs=50%', "
            "or keep=0.5, sparsity=0.5 or threshold=..."
        )
    costs = costs or CostModel(graph)
    if budget is not None:
        _check_measured(budget, costs.cost({}))
    bundles, notes = make_bundles(graph, scores, constraints)
    moving = {group.id: scores[group.id] for bundle in bundles for group in bundle.groups}
    ranked = (
        normalise(moving, constraints.normalise)
        if sensitivities is None
        else sensitivities.rises(moving)
    )
    return Problem(graph, costs, budget, constraints, scores, bundles, ranked, notes)


def _check_measured(budget: Budget, dense: Cost) -> None:
    if any(limit.metric == "energy" for limit in budget.limits) and dense.energy_j is None:
        raise BudgetError(
            f"budget {budget}: energy has to be measured on a device. plan_within() does that, "
            "with watts=45 where the hardware counts none, and so does `secateur plan --watts 45`; "
            "or budget what is counted: params, macs, size and memory"
        )
    if any(limit.metric == "latency" for limit in budget.limits) and dense.latency_ms is None:
        raise BudgetError(
            f"budget {budget}: latency has to be measured on a device. prune() and plan_within() "
            "do that; plan() takes it as costs=TimedCosts(graph, time_device(model, graph, inputs))"
            ", or a budget of what is counted: params, macs, size and memory"
        )
