"""How many units each group keeps, so that all of the model's own size arithmetic stays true.

The solver stands between "how much" and "which": selectors ask for counts, this returns the
nearest counts that satisfy every relation (equal chunks, ``heads * head_dim == width``,
divisibility, predicates that must not flip). The sum of relative deviations is the least there
is, ties go toward fewer units removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from secateur.core.errors import BudgetError
from secateur.core.expressions import Field, Relation
from secateur.core.graph import Graph, Group
from secateur.select._counts_compile import System, compile_relations
from secateur.select._counts_constraints import Constraint, Unsatisfiable
from secateur.select._counts_ranges import bound_variables
from secateur.select._counts_solve import Goal, solve, violated
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
) -> Solution:
    """The counts nearest to `wanted` that satisfy the graph's relations and these.

    wanted: units to keep by axis index; axes that are absent, and pinned groups, keep all.
    allowed: the counts an axis of `wanted` may have, by default 1 to all. fields: values of
    fields that only `relations` speak of.

    Raises: BudgetError naming what cannot hold together, possible only with `allowed` or
    `relations`; ValueError for an axis that the graph does not have.
    """
    groups = {group.axis.index: group for group in graph.groups}
    for index in wanted:
        if index not in groups:
            raise ValueError(f"axis {index} belongs to no group of this graph; see graph.groups")
    goals = {
        index: _goal(groups[index], count, (allowed or {}).get(index))
        for index, count in sorted(wanted.items())
        if groups[index].pinned is None
    }
    every = (*graph.relations, *relations)
    old = {**graph.fields, **(fields or {})}
    ranges = {index: goal.range() for index, goal in goals.items()}
    system = compile_relations(every, old, ranges)
    bound_variables(system)
    try:
        values = solve(system.constraints, system.ranges, goals)
    except Unsatisfiable as conflict:
        raise _impossible(conflict, system, goals, every, groups) from None
    counts = {index: values[index] for index in goals if values[index] < groups[index].size}
    notes = _notes(groups, wanted, goals, system, values, every)
    return Solution(counts, solve_fields(every, old, counts), notes)


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


def _notes(
    groups: Mapping[int, Group],
    wanted: Mapping[int, int],
    goals: Mapping[int, Goal],
    system: System,
    values: Mapping[int, int],
    relations: Sequence[Relation],
) -> dict[int, str]:
    """Why an axis keeps another number of units than was wanted."""
    users: dict[int, list[Constraint]] = {}
    for constraint in system.constraints:
        for number in constraint.variables():
            users.setdefault(number, []).append(constraint)
    asked = {**values, **{index: goal.wanted for index, goal in goals.items()}}
    notes: dict[int, str] = {}
    for index, group in groups.items():
        if index not in wanted or wanted[index] == values.get(index, group.size):
            continue
        start = f"{group.id}: asked {wanted[index]} of {group.size} units, keeps "
        if index not in goals:
            notes[index] = f"{start}all: {group.pinned}"
            continue
        # what breaks with everything as asked says most; otherwise what this count alone breaks
        alone = {**values, index: goals[index].wanted}
        mine = users.get(index, ())
        broken = next(chain(violated(mine, asked), violated(mine, alone)), None)
        if values[index] == goals[index].best():
            broken = None
        notes[index] = f"{start}{values[index]}: " + _reason(
            broken, goals[index], relations, groups
        )
    return notes


def _reason(
    broken: Constraint | None,
    goal: Goal,
    relations: Sequence[Relation],
    groups: Mapping[int, Group],
) -> str:
    if broken is None:
        if goal.allowed is not None and goal.wanted not in goal.allowed:
            return "the nearest of its allowed counts"
        return "a group keeps between one and all of its units"
    return " and ".join(describe_relation(relations[n], groups) for n in broken.sources[:3])


def _impossible(
    conflict: Unsatisfiable,
    system: System,
    goals: Mapping[int, Goal],
    relations: Sequence[Relation],
    groups: Mapping[int, Group],
) -> BudgetError:
    """The error that names relations and restricted groups that exclude each other."""
    sources = set(conflict.sources)
    involved = set[int]()
    for constraint in system.constraints:
        if sources & set(constraint.sources):
            involved |= constraint.variables()
    lines = [describe_relation(relations[n], groups) for n in conflict.sources[:6]]
    for index, goal in goals.items():
        group = groups[index]
        if goal.allowed is not None and index in involved:
            shown = ", ".join(map(str, goal.allowed[:8])) + (
                ", .." if len(goal.allowed) > 8 else ""
            )
            lines.append(f"{group.id} keeps one of {shown} of {group.size} units")
    more = f" (and {len(lines) - 12} more)" if len(lines) > 12 else ""
    return BudgetError(
        "no unit counts satisfy these together: " + "; ".join(lines[:12]) + more + ". "
        "Allow more counts for one of the groups, or drop the constraint"
    )
