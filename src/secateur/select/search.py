"""How far to prune: the shallowest level that meets the budget, then units given back.

Levels lie on a fixed grid, so that the same problem under a larger budget never goes deeper. The
deepest level is where the rules stop pruning; a budget that is not met there is an error.
"""

from __future__ import annotations

from secateur.core.dims import Counts
from secateur.core.errors import BudgetError
from secateur.select.conflict import explain_conflict
from secateur.select.counts import Solution
from secateur.select.give_back import give_back
from secateur.select.problem import Problem

GRID = 2**16
"""Levels between whole and the deepest; finer than one unit of the widest layers."""


def search(problem: Problem) -> Solution:
    """Counts that meet the budget as closely as one unit here and there allows.

    Raises: BudgetError that names the rules in the way and the nearest that can be met.
    """
    if problem.budget is not None and problem.fits(widest := problem.possible(problem.whole)):
        return problem.solve(widest)
    deepest = problem.constraints.deepest
    if problem.budget is None:
        return problem.solve(problem.wanted(deepest))
    floor = problem.possible(problem.wanted(deepest))
    if not problem.fits(floor):
        raise BudgetError(explain_conflict(problem, floor))
    shallow, deep = 0, GRID  # whole does not fit, the deepest does
    while deep - shallow > 1:
        middle = (shallow + deep) // 2
        fits = problem.fits(problem.possible(problem.wanted(deepest * middle / GRID)))
        shallow, deep = (shallow, middle) if fits else (middle, deep)
    level = deepest * deep / GRID
    base = problem.possible(problem.wanted(level))
    return _settle(problem, level, base, give_back(problem, base, level))


def _settle(problem: Problem, level: float, base: Counts, counts: Counts) -> Solution:
    """The counts with their fields, and why they are not those of the level where sizes are
    tied."""
    wanted = problem.wanted(level)
    asked = {n: wanted[n] for together in problem.tied for n in together}
    final = problem.solve(counts, asked=asked)
    # the solver might rather have it otherwise
    return final if problem.fits(final.counts) else problem.solve(base, asked=asked)
