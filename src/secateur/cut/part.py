"""A part of a plan: only some of its groups cut, the others whole, as far as sizes allow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from secateur.core.dims import axes_of
from secateur.core.graph import Graph
from secateur.core.plan import FieldChange, Plan
from secateur.core.scales import folds_of
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
    kept = [id for id in plan.keep if plan.axes[id].index in wanted]
    axes = {plan.axes[id].index for id in kept}
    return replace(
        plan,
        axes={id: plan.axes[id] for id in kept},
        keep={id: plan.keep[id] for id in kept},
        tensors={
            name: dims
            for name, dims in plan.tensors.items()
            if any(axis.index in axes for dim in dims for axis in axes_of(dim))
        },
        changes=tuple(
            FieldChange(field, graph.fields[field], value)
            for field, value in solution.fields.items()
            if field in graph.fields and graph.fields[field] != value
        ),
        exact=tuple(id for id in plan.exact if id in kept),
        inexact={},
        folds=folds_of(
            graph.scales, solution.counts, graph.fields, {**graph.fields, **solution.fields}
        ),
    )


def depth_of(plan: Plan) -> Plan:
    """The plan with its blocks removed and every group whole."""
    return replace(plan, axes={}, keep={}, tensors={}, changes=(), exact=(), inexact={}, folds=())
