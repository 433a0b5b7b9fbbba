"""How many units each group keeps, so that all of the model's own size arithmetic stays true.

The solver stands between "how much" and "which": selectors ask for counts, this returns the
nearest counts that satisfy every relation (equal chunks, ``heads * head_dim == width``,
divisibility, predicates that must not flip). The sum of relative deviations is the least there
is, ties go toward fewer units removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.core.errors import BudgetError
from secateur.core.expressions import Field, Relation
from secateur.core.graph import Graph, Group
from secateur.select._counts_compile import System, compile_relations
from secateur.select._counts_constraints import Unsatisfiable
from secateur.select._counts_ranges import bound_variables
from secateur.select._counts_solve import WHOLE, Goal, solve
from secateur.select._counts_words import explain_changes, explain_conflict
from secateur.select.fields import solve_fields
from secateur.select.relations import describe_relation


@dataclass(frozen=True)
class Solution:
    """Counts of the axes that lose units, the value of every field, and what differs from what
    was asked: for each such axis the reason, in words."""

    counts: dict[int, int]
    fields: dict[Field, int]
    notes: dict[int, str] = field(default_factory=dict)


def solve_counts(
    graph: Graph,
    wanted: Mapping[int, int],
    *,
    allowed: Mapping[int, Sequence[int]] | None = None,
    relations: tuple[Relation, ...] = (),
    fields: Mapping[Field, int] | None = None,
    weights: Mapping[int, float] | None = None,
) -> Solution:
    """The counts nearest to `wanted` that satisfy the graph's relations and these.

    wanted: units to keep by axis index; axes that are absent, and pinned groups, keep all.
    allowed: the counts an axis of `wanted` may have, by default 1 to all. fields: values of
    fields that only `relations` speak of. weights: how much the deviation of an axis counts
    beside the others', one where absent; rounded to 1/4096 of the heaviest.

    Raises: BudgetError naming what cannot hold together, possible only with `allowed` or
    `relations`; ValueError for an axis that the graph does not have.
    """
    groups = {group.axis.index: group for group in graph.groups}
    for index in wanted:
        if index not in groups:
            raise ValueError(f"axis {index} belongs to no group of this graph; see graph.groups")
    heaviest = max((1.0, *(weights or {}).values()))
    goals = {}
    for index, count in sorted(wanted.items()):
        if groups[index].pinned is None:
            goal = _goal(groups[index], count, (allowed or {}).get(index))
            goals[index] = _weighed(goal, (weights or {}).get(index, 1.0) / heaviest)
    every = (*graph.relations, *relations)
    old = {**graph.fields, **(fields or {})}
    try:
        system, values = _attempt(every, old, goals)
    except Unsatisfiable as conflict:
        raise _impossible(conflict, every, old, goals, groups) from None
    counts = {index: values[index] for index in goals if values[index] < groups[index].size}
    notes = explain_changes(groups, wanted, goals, system.constraints, values, every)
    return Solution(counts, solve_fields(every, old, counts), notes)


def _attempt(
    relations: Sequence[Relation], old: Mapping[Field, int], goals: Mapping[int, Goal]
) -> tuple[System, dict[int, int]]:
    """The constraints and the best value of every variable. Raises: Unsatisfiable."""
    system = compile_relations(
        relations, old, {index: goal.range() for index, goal in goals.items()}
    )
    bound_variables(system)
    return system, solve(system.constraints, system.ranges, goals)


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


def _weighed(goal: Goal, share: float) -> Goal:
    """The goal with its share of the heaviest axis's weight, at least one step."""
    return replace(goal, weight=min(max(round(share * WHOLE), 1), WHOLE))


def _goal(group: Group, count: int, allowed: Sequence[int] | None) -> Goal:
    wanted = min(max(int(count), 1), group.size)
    if allowed is None:
        return Goal(group.size, wanted)
    values = np.unique(np.asarray([n for n in allowed if 1 <= n <= group.size], dtype=np.int64))
    if not len(values):
        raise BudgetError(
            f"group {group.id}: none of the allowed counts lies between 1 and its {group.size} "
            "units; allow another count, or leave the group out of the constraint"
        )
    return Goal(group.size, wanted, None if len(values) == group.size else values)
