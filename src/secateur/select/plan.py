"""From scores and a budget to a plan: the last step before anything is cut.

How many units each group keeps comes from the search; which ones, from the scores: the highest
stay, ties go to the lower index. The same inputs give the same plan, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from secateur.core.budget import MEASURED, Budget
from secateur.core.collecting import uncollected
from secateur.core.depth import without_blocks
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.core.sensitivities import Sensitivities
from secateur.cost.counted import CostModel
from secateur.select.constraints import Constraints
from secateur.select.counts import Solution
from secateur.select.depth import Depth, choose_blocks, split_scores
from secateur.select.matching import left_of
from secateur.select.notes import plan_notes
from secateur.select.problem import Problem, make_problem
from secateur.select.search import search


@uncollected()
def plan(
    graph: Graph,
    scores: Scores,
    *,
    budget: str | Budget | None = None,
    constraints: Constraints | None = None,
    settings: Mapping[str, Any] | None = None,
    costs: CostModel | None = None,
    sensitivities: Sensitivities | None = None,
    **options: Any,
) -> Plan:
    """Which units stay so that the budget is met as closely as possible and never overshot.

    budget: for example "macs=50%,params=1.2M"; without one, as much goes as the options say.
    options: fields of `Constraints`, on top of `constraints`, for example ``selector="global",
    min_units=5``. settings: what else the plan should record, such as the criterion and seed.

    Scores of blocks among `scores` let whole residual blocks go: ``blocks=0.25`` of them, or as
    many as the budget needs where there are no scores of units. With both, the blocks go first and
    the units of what is left follow to the budget.

    costs: what a cut costs; counted where None. `TimedCosts` adds milliseconds, measured on a
    device, for a budget such as "latency=50%".

    sensitivities: what `measure_sensitivities` found. Which units of a group go first is still for
    the scores to say; what they are worth beside other groups' is what was measured, for
    ``selector="knapsack"`` and "global".

    Raises: BudgetError when the budget cannot be met, naming the rule in the way and the nearest
    that can; ValueError for a wrong option; PlanMismatchError for another graph's scores.
    """
    constraints = replace(constraints or Constraints(), **options)
    parsed = None if budget is None else Budget.parse(budget)
    cpu = {id: values.detach().to("cpu", torch.float64) for id, values in scores.items()}
    units, blocks = split_scores(graph, cpu)
    if not blocks and constraints.blocks is None:
        problem = make_problem(
            graph, units, parsed, constraints, costs=costs, sensitivities=sensitivities
        )
        known = {} if sensitivities is None else {"sensitivities": sensitivities.hash}
        return assemble(problem, search(problem), {**(settings or {}), **known})
    if sensitivities is not None:
        raise ValueError("sensitivities are of units; leave blocks out, or the sensitivities")
    if parsed is not None and any(limit.metric in MEASURED for limit in parsed.limits):
        raise BudgetError(
            f"budget {parsed} while whole blocks go: what is measured are units; leave blocks out, "
            "or budget what can be counted: params, macs, size and memory"
        )
    if constraints.blocks is None and (units or parsed is None):
        raise ValueError("the scores hold blocks; say how many go, for example blocks=0.25")
    depth = choose_blocks(graph, blocks, budget=parsed, constraints=constraints)
    left = without_blocks(graph, depth.paths)
    problem = _narrower(left, units, parsed, left_of(constraints, graph, left))
    problem = replace(problem, reference=CostModel(graph).cost({}))
    solution = search(problem) if problem.bundles else problem.solve({})
    found = _with_depth(assemble(problem, solution, settings or {}), problem, graph, depth)
    return replace(found, settings={**found.settings, **constraints.to_json()})


def _narrower(
    left: Graph, units: Mapping[str, Tensor], budget: Budget | None, constraints: Constraints
) -> Problem:
    """The problem of what is left without the blocks; nothing moves in it for depth alone."""
    if units and (budget is not None or constraints.has_target):
        there = {group.id for group in left.groups}
        scores = {id: values for id, values in units.items() if id in there}
        return make_problem(left, scores, budget, constraints)
    still = replace(left, groups=())
    return Problem(still, CostModel(still), budget, constraints, {}, (), {}, ())


def _with_depth(plan: Plan, problem: Problem, graph: Graph, depth: Depth) -> Plan:
    if problem.budget is not None and not problem.budget.met(plan.after, plan.before):
        raise BudgetError(
            f"budget {problem.budget} is not met without {len(depth.removed)} blocks "
            f"({plan.after}); remove more blocks, or score units as well"
        )
    notes = (*depth.notes, *(plan.notes if problem.bundles else ()))
    return replace(
        plan, graph_hash=graph.hash, removed=depth.paths, identity=depth.identity, notes=notes
    )


def choose_units(scores_U: Float[Tensor, " units"], count: int) -> tuple[int, ...]:
    """The `count` units with the highest scores, ascending; ties go to the lower index.

    >>> choose_units(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3)
    (0, 1, 3)
    """
    order = np.argsort(-scores_U.numpy(), kind="stable")  # by far the quickest for few units
    return tuple(np.sort(order[:count]).tolist())


def assemble(problem: Problem, solution: Solution, settings: Mapping[str, Any]) -> Plan:
    counts = {group.axis.index: group.size for group in problem.graph.groups} | solution.counts
    keep = {
        group.id: choose_units(problem.scores[group.id], counts[group.axis.index])
        for group in problem.graph.groups
        if counts[group.axis.index] < group.size
    }
    recorded = {
        **settings,
        "budget": None if problem.budget is None else str(problem.budget),
        **problem.constraints.to_json(),
    }
    return Plan.of(
        problem.graph,
        keep,
        solution.fields,
        before=problem.dense,
        after=problem.costs.cost(solution.counts),
        settings=recorded,
        notes=plan_notes(problem, solution),
    )
