"""Why a budget cannot be met: which rule is in the way, and the nearest that can be met.

Found by taking the rules away, one at a time and then all together.
"""

from __future__ import annotations

import math

from secateur.core.budget import Limit
from secateur.core.dims import Counts
from secateur.core.errors import BudgetError
from secateur.select.constraints import Constraints
from secateur.select.problem import Problem, make_problem


def explain_conflict(problem: Problem, floor: Counts) -> str:
    """The error's text. floor: the counts that the rules allow at most to remove."""
    assert problem.budget is not None
    cost, dense = problem.costs.cost(floor), problem.dense
    missed = [x for x in problem.budget.limits if x.value(cost) > x.allowed(dense)]
    nearest = ",".join(_nearest(x, x.value(cost), x.value(dense)) for x in missed)
    start = f"{', '.join(str(x) for x in missed)} cannot be met: "
    ask = f"the least that can remain is {nearest}; ask for that"
    relaxed = problem.constraints.relaxed()
    guilty = [name for name, constraints in relaxed.items() if _would_fit(problem, constraints)]
    if guilty:
        rules = " or ".join(guilty)
        return f"{start}with {' and '.join(guilty)} {ask}, or relax {rules}"
    free = Constraints(selector=problem.constraints.selector)
    if relaxed and _would_fit(problem, free):
        return f"{start}with {' and '.join(relaxed)} together {ask}, or relax them"
    fixed = sum(g.pinned is not None or g.structural for g in problem.graph.groups)
    return (
        f"{start}with one unit left in every group that may be cut {ask} ({fixed} of "
        f"{len(problem.graph.groups)} groups are pinned or structural, graph.groups says why)"
    )


def _would_fit(problem: Problem, constraints: Constraints) -> bool:
    try:
        other = make_problem(
            problem.graph, problem.scores, problem.budget, constraints, costs=problem.costs
        )
        return other.fits(other.solve(other.wanted(constraints.deepest)).counts)
    except BudgetError:  # the other rules exclude each other without this one
        return False


def _nearest(limit: Limit, value: float, dense: float) -> str:
    """The limit that can just be met, rounded up so that it can be asked for as it stands."""
    if limit.fraction is None:
        return f"{limit.metric}={math.ceil(value)}"
    return f"{limit.metric}={math.ceil(1000 * value / dense) / 10:g}%"
