"""From constraints and goals to the best value of every variable.

`divide` merges what is equal, splits what is wide and takes the connected components apart; it
depends on what may be, not on what is wanted. `choose` searches each component for the goals, and
variables that no constraint mentions take the value that was wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.select._counts_constraints import Constraint, Unsatisfiable, joined
from secateur.select._counts_goals import Goal, Scale, scale_for
from secateur.select._counts_merge import Merged, merge
from secateur.select._counts_polynomial import Range, constant_value
from secateur.select._counts_search import cheapest
from secateur.select._counts_split import split_wide
from secateur.select._counts_tables import Domain

Question = tuple[tuple[int, int], ...]
"""What is wanted of the variables of one component."""


@dataclass(frozen=True)
class Part:
    """One connected component: its constraints and variables (roots, see `Merged`), and the goals
    that hang on them. solved: answers so far."""

    constraints: tuple[Constraint, ...]
    variables: tuple[int, ...]
    goals: tuple[int, ...]
    solved: dict[Question, dict[int, int]] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Divided:
    """Components of a system, and the roots with goals that no constraint mentions."""

    merged: Merged
    parts: tuple[Part, ...]
    alone: tuple[int, ...]


def divide(
    constraints: Sequence[Constraint], ranges: Mapping[int, Range], numbers: frozenset[int]
) -> Divided:
    """The components in which a variable of `numbers`, those with a goal, takes part.

    Raises: Unsatisfiable with the positions of relations that cannot hold together.
    """
    merged = merge(constraints, ranges)
    narrow = split_wide(merged.constraints, merged.ranges)
    parts = []
    for part in _components(narrow):
        variables = sorted(set[int]().union(*(c.variables() for c in part)))
        goals = [m for n in variables for m in _members(merged, n) if m in numbers]
        if goals:
            parts.append(Part(tuple(part), tuple(variables), tuple(goals)))
    taken = {number for part in parts for number in part.variables}
    alone = [
        root
        for root, members in merged.members.items()
        if root not in taken and not numbers.isdisjoint(members)
    ]
    return Divided(merged, tuple(parts), tuple(alone))


def choose(divided: Divided, goals: Mapping[int, Goal]) -> dict[int, int]:
    """Values of all variables that have a goal, and of those that depend on one with them.

    Only `wanted` of the goals may differ between calls; equal questions are answered once.
    Raises: Unsatisfiable.
    """
    merged = divided.merged
    roots: dict[int, int] = {}
    for part in divided.parts:
        question = tuple((number, goals[number].wanted) for number in part.goals)
        if question not in part.solved:
            part.solved[question] = _solve_part(part, merged, goals)
        roots |= part.solved[question]
    for root in divided.alone:
        mine = [goals[number] for number in merged.members[root] if number in goals]
        domain = _domain(merged, root, goals, scale_for(mine))
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


def needs_all(divided: Divided, goals: Mapping[int, Goal], number: int) -> bool:
    """Whether every solution keeps all units of a variable.

    Looked into only where a goal insists; otherwise many may keep all because that is nearest.
    """
    size = goals[number].size
    polynomial = divided.merged.values.get(number)
    if polynomial is not None and constant_value(polynomial) == size:
        return True
    part = next((part for part in divided.parts if number in part.goals), None)
    if part is None or not goals[number].insist:
        return False
    fewer = np.arange(1, size, dtype=np.int64)
    fewer = fewer[goals[number].permits(fewer)]
    try:
        _solve_part(part, divided.merged, {**goals, number: replace(goals[number], allowed=fewer)})
    except Unsatisfiable:
        return True
    return False


def solve(
    constraints: Sequence[Constraint], ranges: Mapping[int, Range], goals: Mapping[int, Goal]
) -> dict[int, int]:
    """The best values for one set of goals. Raises: Unsatisfiable."""
    return choose(divide(constraints, ranges, frozenset(goals)), goals)


def _solve_part(part: Part, merged: Merged, goals: Mapping[int, Goal]) -> dict[int, int]:
    scale = scale_for(goals[number] for number in part.goals)
    domains = {number: _domain(merged, number, goals, scale) for number in part.variables}
    shared: list[Constraint] = []
    for constraint in part.constraints:
        names = constraint.variables()
        if len(names) > 1 or domains[min(names)].open is not None:
            shared.append(constraint)
            continue
        (number,) = names
        holds = constraint.holds({number: domains[number].values})
        domains[number] = domains[number].only(np.flatnonzero(holds))
    found = cheapest(domains, shared, unit=scale.unit)
    if found is None:
        sources: tuple[int, ...] = ()
        for constraint in part.constraints:
            sources = joined(sources, constraint.sources)
        for number in part.variables:
            sources = joined(sources, merged.sources.get(number, ()))
        raise Unsatisfiable(sources)
    return found


def _members(merged: Merged, root: int) -> Mapping[int, int]:
    return merged.members.get(root, {root: 1})


def _domain(merged: Merged, root: int, goals: Mapping[int, Goal], scale: Scale) -> Domain:
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
        cost = cost + goal.cost(factor * values, scale)
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
