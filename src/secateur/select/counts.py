"""How many units each group keeps, so that all of the model's own size arithmetic stays true.

The solver stands between "how much" and "which": selectors ask for counts, this returns the
nearest counts that satisfy every relation (equal chunks, ``heads * head_dim == width``,
divisibility, predicates that must not flip).

What is least: first the number of groups that stay whole although fewer units were asked for, so
that none does unless it has to; then the distance, the sum over the groups of
``weight * |count - asked| / size``, where a plan's weight is the share of the model's elements
that the group runs through; then the number of units removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.core.errors import BudgetError
from secateur.core.expressions import Field, Relation
from secateur.core.graph import Graph, Group
from secateur.select._counts_compile import System, compile_relations
from secateur.select._counts_constraints import Unsatisfiable
from secateur.select._counts_goals import WHOLE, Goal
from secateur.select._counts_polynomial import Column
from secateur.select._counts_ranges import bound_variables
from secateur.select._counts_solve import Divided, choose, divide, needs_all
from secateur.select._counts_words import Asked, explain_changes, explain_conflict
from secateur.select.fields import solve_fields
from secateur.select.relations import describe_relation


@dataclass(frozen=True)
class Solution:
    """Counts of the axes that lose units, the value of every field, and what differs from what
    was asked: for each such axis the reason, in words."""

    counts: dict[int, int]
    fields: dict[Field, int]
    notes: dict[int, str] = field(default_factory=dict)


class CountSolver:
    """The solver of one graph under fixed rules, compiled once and asked many times.

    allowed: the counts an axis of `axes` may have, by default 1 to all. weights: how much the
    deviation of an axis counts beside the others', one where absent; rounded to 1/4096 of the
    heaviest. insist: a group that was asked for fewer units stays whole only if it has to; else
    only the distance counts. Axes that are not in `axes`, and pinned groups, keep all.

    Raises: BudgetError naming what cannot hold together, possible only with `allowed` or
    `relations`; ValueError for an axis that the graph does not have.
    """

    def __init__(
        self,
        graph: Graph,
        axes: Iterable[int],
        *,
        allowed: Mapping[int, Sequence[int]] | None = None,
        relations: tuple[Relation, ...] = (),
        weights: Mapping[int, float] | None = None,
        insist: bool = True,
    ) -> None:
        groups = self._groups = {group.axis.index: group for group in graph.groups}
        heaviest = max((1.0, *(weights or {}).values()))
        self._goals: dict[int, Goal] = {}
        for index in sorted(axes):
            if index not in groups:
                raise ValueError(
                    f"axis {index} belongs to no group of this graph; see graph.groups"
                )
            if groups[index].pinned is None:
                values = _allowed(groups[index], (allowed or {}).get(index))
                weight = _weight((weights or {}).get(index, 1.0) / heaviest)
                size = groups[index].size
                self._goals[index] = Goal(size, size, values, weight, insist)
        self._relations = (*graph.relations, *relations)
        self._old = graph.fields
        try:
            self._system, self._divided = _divide(self._relations, self._old, self._goals)
        except Unsatisfiable as conflict:
            raise _impossible(conflict, self._relations, self._old, self._goals, groups) from None

    @property
    def tied(self) -> tuple[frozenset[int], ...]:
        """Sets of axes that move together; the axes that are in none move one by one."""
        members = self._divided.merged.members
        sets = [frozenset(part.goals) for part in self._divided.parts]
        sets += [frozenset(self._goals.keys() & members[n]) for n in self._divided.alone]
        return tuple(sets)

    def counts(self, wanted: Mapping[int, int]) -> dict[int, int]:
        """The counts of the axes that lose units. Raises: BudgetError."""
        values = self._values(self._asked(wanted))
        return self._smaller(values)

    def solve(
        self, wanted: Mapping[int, int], *, asked: Mapping[int, int] | None = None
    ) -> Solution:
        """Counts, fields and the reason for each difference. Raises: BudgetError.

        asked: an earlier wish; differences from it are explained instead where it breaks a
        relation.
        """
        values = self._values(self._asked(wanted))
        counts = self._smaller(values)
        every = asked is None
        notes = self._explain(wanted if asked is None else asked, values, every=every)
        return Solution(counts, solve_fields(self._relations, self._old, counts), notes)

    def _explain(
        self, wanted: Mapping[int, int], values: Mapping[int, int], *, every: bool
    ) -> dict[int, str]:
        goals = self._asked(wanted)
        needed = frozenset(
            index
            for index, goal in goals.items()
            if goal.wanted < goal.size == values[index] and needs_all(self._divided, goals, index)
        )
        told = Asked(self._groups, wanted, goals, needed, every)
        return explain_changes(told, self._system.constraints, values, self._relations)

    def _asked(self, wanted: Mapping[int, int]) -> dict[int, Goal]:
        return {
            index: goal.wanting(int(wanted.get(index, goal.size)))
            for index, goal in self._goals.items()
        }

    def _values(self, goals: Mapping[int, Goal]) -> dict[int, int]:
        try:
            return choose(self._divided, goals)
        except Unsatisfiable as conflict:
            raise _impossible(conflict, self._relations, self._old, goals, self._groups) from None

    def _smaller(self, values: Mapping[int, int]) -> dict[int, int]:
        return {i: values[i] for i in self._goals if values[i] < self._groups[i].size}


def solve_counts(
    graph: Graph,
    wanted: Mapping[int, int],
    *,
    allowed: Mapping[int, Sequence[int]] | None = None,
    relations: tuple[Relation, ...] = (),
    weights: Mapping[int, float] | None = None,
) -> Solution:
    """The counts nearest to `wanted`, units to keep by axis index, that satisfy the graph's
    relations and these; `CountSolver` says what the rest means and what is raised."""
    solver = CountSolver(graph, wanted, allowed=allowed, relations=relations, weights=weights)
    return solver.solve(wanted)


def _divide(
    relations: Sequence[Relation], old: Mapping[Field, int], goals: Mapping[int, Goal]
) -> tuple[System, Divided]:
    """The constraints, and their components. Raises: Unsatisfiable."""
    system = compile_relations(
        relations, old, {index: goal.range() for index, goal in goals.items()}
    )
    bound_variables(system)
    return system, divide(system.constraints, system.ranges, frozenset(goals))


def _attempt(
    relations: Sequence[Relation], old: Mapping[Field, int], goals: Mapping[int, Goal]
) -> None:
    """Whether there is a solution at all. Raises: Unsatisfiable."""
    choose(_divide(relations, old, goals)[1], goals)


def _impossible(
    conflict: Unsatisfiable,
    relations: Sequence[Relation],
    old: Mapping[Field, int],
    goals: Mapping[int, Goal],
    groups: Mapping[int, Group],
) -> BudgetError:
    """The error that names the fewest restricted groups and relations that exclude each other.

    Each restriction is lifted in turn; those without which there is still no solution stay lifted.
    """
    needed = dict(goals)
    for index in [index for index, goal in goals.items() if goal.allowed is not None]:
        lifted = {**needed, index: replace(needed[index], allowed=None)}
        try:
            _attempt(relations, old, lifted)
        except Unsatisfiable as still:
            needed, conflict = lifted, still
    names = [describe_relation(relations[n], groups) for n in conflict.sources]
    return BudgetError(explain_conflict(names, needed, groups))


def _weight(share: float) -> int:
    """A share of the heaviest axis's weight, at least one step."""
    return min(max(round(share * WHOLE), 1), WHOLE)


def _allowed(group: Group, allowed: Sequence[int] | None) -> Column | None:
    """The allowed counts, ascending, None for all."""
    if allowed is None:
        return None
    values = np.unique(np.asarray([n for n in allowed if 1 <= n <= group.size], dtype=np.int64))
    if not len(values):
        raise BudgetError(
            f"group {group.id}: none of the allowed counts lies between 1 and its {group.size} "
            "units; allow another count, or leave the group out of the constraint"
        )
    return None if len(values) == group.size else values
