"""How far to prune: the shallowest level that meets the budget, then units given back.

Levels lie on a fixed grid, so that the same problem under a larger budget never goes deeper. The
deepest level is where the rules stop pruning; a budget that is not met there is an error.
"""

from __future__ import annotations

from dataclasses import replace

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
    base = problem.solve(problem.wanted(level))
    return _settle(problem, base, give_back(problem, base.counts, level))


def _settle(problem: Problem, base: Solution, counts: Counts) -> Solution:
    """The counts with their fields; a note stays where the count is still the one it explains."""
    final = problem.solve({**problem.whole, **counts})
    if not problem.fits(final.counts):  # the solver would rather have it otherwise
        return base
    notes = {
        index: note
        for index, note in base.notes.items()
        if final.counts.get(index) == base.counts.get(index)
    }
    return replace(final, notes=notes)
