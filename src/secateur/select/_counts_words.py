"""Notes and errors of the count solver: why a count differs from what was asked, or why none is.

A note names the relations that the asked counts break; an error names the relations and the
restricted groups that exclude each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.core.expressions import Relation
from secateur.core.graph import Group
from secateur.select._counts_constraints import Constraint
from secateur.select._counts_goals import Goal
from secateur.select._counts_solve import violated
from secateur.select.relations import describe_relation

_SHOWN = 6


@dataclass(frozen=True)
class Asked:
    """What was asked for: the groups by axis, the wish for each axis, the goals made of it, the
    axes whose units every solution keeps, and whether every difference needs a reason, or only
    those for which a relation is one."""

    groups: Mapping[int, Group]
    wanted: Mapping[int, int]
    goals: Mapping[int, Goal]
    needed: frozenset[int]
    every: bool = True


def explain_changes(
    asked: Asked,
    constraints: Sequence[Constraint],
    values: Mapping[int, int],
    relations: Sequence[Relation],
) -> dict[int, str]:
    """Why an axis keeps another number of units than was wanted."""
    groups, wanted, goals = asked.groups, asked.wanted, asked.goals
    users: dict[int, list[Constraint]] = {}
    for constraint in constraints:
        for number in constraint.variables():
            users.setdefault(number, []).append(constraint)
    together = {**values, **{index: goal.wanted for index, goal in goals.items()}}
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
        broken = next(violated(mine, together), None)
        if broken is None and not asked.every:
            continue
        if broken is None:
            broken = next(violated(mine, alone), None)
        if values[index] == goals[index].best():
            broken = None
        kept = f"{values[index]}: "
        if index in asked.needed:
            kept = "all: every solution of its size equations does, "
        notes[index] = start + kept + _reason(broken, goals[index], relations, groups)
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


def explain_conflict(
    names: Sequence[str], goals: Mapping[int, Goal], groups: Mapping[int, Group]
) -> str:
    """The text of the error: relations in words, and the groups whose counts are restricted."""
    lines = list(names[:_SHOWN])
    if len(names) > _SHOWN:
        lines.append(f"{len(names) - _SHOWN} more relations of the same groups")
    for index, goal in goals.items():
        if goal.allowed is not None:
            shown = ", ".join(map(str, goal.allowed[:8])) + (
                ", .." if len(goal.allowed) > 8 else ""
            )
            lines.append(f"{groups[index].id} keeps one of {shown} of {goal.size} units")
    return (
        "no unit counts satisfy these together: " + "; ".join(lines) + ". Allow more counts for "
        "one of these groups"
    )
