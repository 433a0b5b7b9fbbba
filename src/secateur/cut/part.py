"""A part of a plan: only some of its groups cut, the others whole, as far as sizes allow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.select.counts import solve_counts


def part_of(plan: Plan, graph: Graph, groups: Collection[str]) -> Plan | None:
    """The plan restricted to `groups`; None when nothing of it can be cut alone.

    A group whose size is tied to one outside (heads whose width must equal the residual's) cannot
    be cut alone and is left out. Costs stay those of the whole plan.
    """
    if set(groups) >= plan.keep.keys():
        return plan
    wanted = {plan.axes[id].index: len(plan.keep[id]) for id in groups if id in plan.keep}
    while wanted:
        solution = solve_counts(graph, wanted)
        moved = {axis for axis, count in wanted.items() if solution.counts.get(axis) != count}
        if not moved:
            break
        wanted = {axis: count for axis, count in wanted.items() if axis not in moved}
    if not wanted:
        return None
    part = Plan.of(
        graph,
        {id: units for id, units in plan.keep.items() if plan.axes[id].index in wanted},
        solution.fields,
        before=plan.before,
        after=plan.after,
        settings=plan.settings,
        notes=plan.notes,
    )
    return replace(part, graph_hash=plan.graph_hash, removed=plan.removed, identity=plan.identity)


def depth_of(plan: Plan) -> Plan:
    """The plan with its blocks removed and every group whole."""
    return replace(plan, axes={}, keep={}, tensors={}, changes=(), exact=(), inexact={}, folds=())
