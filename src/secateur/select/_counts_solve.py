"""From constraints and goals to the best value of every variable.

Merge what is equal, split what is wide, take the connected components apart, and search each.
Variables that no constraint mentions take the value that was wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.select._counts_constraints import Constraint, Unsatisfiable, joined
from secateur.select._counts_merge import Merged, merge
from secateur.select._counts_polynomial import Column, Flags, Range, constant_value
from secateur.select._counts_search import cheapest
from secateur.select._counts_split import split_wide
from secateur.select._counts_tables import Domain

_SHARE = 720_720 * 2**12
"""What a deviation of a whole axis costs: a multiple of most sizes, so that ties are ties."""
_TIE = 2**18
"""Deviation comes before the number of units removed by this factor."""
UNIT = _SHARE * _TIE
WHOLE = 2**12


@dataclass(frozen=True)
class Goal:
    """The value wanted for a variable of this size, and the values it may take (None: all).

    weight: how much a deviation counts, in units of 1 / `WHOLE`.
    """

    size: int
    wanted: int
    allowed: Column | None = None
    weight: int = WHOLE

    def cost(self, values: Column) -> Column:
        """Relative deviation first, units removed second."""
        whole = self.size * WHOLE
        deviation = (_SHARE * self.weight * np.abs(values - self.wanted) + whole // 2) // whole
        return deviation * _TIE + np.maximum(self.size - values, 0)

    def permits(self, values: Column) -> Flags:
        """Which of these values are allowed."""
        return np.ones(len(values), bool) if self.allowed is None else np.isin(values, self.allowed)

    def range(self) -> Range:
        """Smallest and largest allowed value."""
        if self.allowed is None:
            return 1, self.size
        return int(self.allowed.min()), int(self.allowed.max())

    def best(self) -> int:
        """The value nearest to what is wanted."""
        if self.allowed is None:
            return min(max(self.wanted, 1), self.size)
        return int(self.allowed[np.argmin(self.cost(self.allowed))])


def solve(
    constraints: Sequence[Constraint], ranges: Mapping[int, Range], goals: Mapping[int, Goal]
) -> dict[int, int]:
    """Values of all variables that have a goal, and of those that depend on one with them.

    Raises: Unsatisfiable with the positions of relations that cannot hold together.
    """
    merged = merge(constraints, ranges)
    narrow = split_wide(merged.constraints, merged.ranges)
    roots: dict[int, int] = {}
    for part in _components(narrow):
        variables = sorted(set[int]().union(*(c.variables() for c in part)))
        if any(member in goals for n in variables for member in _members(merged, n)):
            roots |= _solve_part(part, variables, merged, goals)
    for root in merged.members:
        if root not in roots and any(member in goals for member in merged.members[root]):
            domain = _domain(merged, root, goals)
            if not len(domain.values):
                raise Unsatisfiable(merged.sources.get(root, ()))
            roots[root] = int(domain.values[np.argmin(domain.cost)])
    values = {n: goal.best() for n, goal in goals.items() if n not in merged.values}
    values |= roots
    for number, polynomial in merged.values.items():
        value = constant_value(polynomial)
        if value is None:
            (((root,), factor),) = polynomial.items()
            value = factor * roots[root] if root in roots else None
        if value is not None:
            values[number] = value
    return values


def _solve_part(
    part: Sequence[Constraint],
    variables: Sequence[int],
    merged: Merged,
    goals: Mapping[int, Goal],
) -> dict[int, int]:
    domains = {number: _domain(merged, number, goals) for number in variables}
    shared: list[Constraint] = []
    for constraint in part:
        names = constraint.variables()
        if len(names) > 1 or domains[min(names)].open is not None:
            shared.append(constraint)
            continue
        (number,) = names
        holds = constraint.holds({number: domains[number].values})
        domains[number] = domains[number].only(np.flatnonzero(holds))
    found = cheapest(domains, shared, unit=UNIT)
    if found is None:
        sources: tuple[int, ...] = ()
        for constraint in part:
            sources = joined(sources, constraint.sources)
        for number in variables:
            sources = joined(sources, merged.sources.get(number, ()))
        raise Unsatisfiable(sources)
    return found


def _members(merged: Merged, root: int) -> Mapping[int, int]:
    return merged.members.get(root, {root: 1})


def _domain(merged: Merged, root: int, goals: Mapping[int, Goal]) -> Domain:
    """Values of a root that all its members allow, with the sum of their costs."""
    low, high = merged.ranges[root]
    mine = [(f, goals[n]) for n, f in _members(merged, root).items() if n in goals]
    start = Domain.between(low, high)
    if not mine or start.open is not None:
        return start
    values, cost = start.values, start.cost
    for factor, goal in mine:
        permitted = goal.permits(factor * values)
        if not permitted.all():
            values, cost = values[permitted], cost[permitted]
        cost = cost + goal.cost(factor * values)
    return Domain(values, cost)


def _components(constraints: Sequence[Constraint]) -> Iterator[list[Constraint]]:
    """Constraints that share no variable with the rest, in the order of their first."""
    parent: dict[int, int] = {}

    def find(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for constraint in constraints:
        first, *others = (find(number) for number in sorted(constraint.variables()))
        for other in others:
            parent[find(other)] = find(first)
    parts: dict[int, list[Constraint]] = {}
    for constraint in constraints:
        parts.setdefault(find(min(constraint.variables())), []).append(constraint)
    yield from parts.values()


def violated(constraints: Sequence[Constraint], values: Mapping[int, int]) -> Iterator[Constraint]:
    """The constraints that these values break; one with a variable that has no value is skipped."""
    for constraint in constraints:
        if constraint.variables() <= values.keys() and not constraint.holds(values):
            yield constraint
