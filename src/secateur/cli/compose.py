"""Several plans, each for the model that the one before makes, as one plan for the dense model.

The iterative loop cuts step by step; what is saved and proved is one cut of the dense model. Unit 5
of a group that was cut to (0, 3, 4, 7, 8, 9) is unit 9 of the dense group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from secateur.core.dims import axes_of
from secateur.core.errors import CutError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import FieldChange, Plan
from secateur.core.scales import folds_of
from secateur.cost.counted import cost
from secateur.select.fields import solve_fields


def compose(
    graph: Graph, plans: Sequence[Plan], *, final: nn.Module, settings: Mapping[str, Any]
) -> Plan:
    """The plan that cuts the model of `graph` as `plans` cut it one after another.

    final: the model after the last plan, with which every shape is compared.
    Raises: CutError when the steps cannot be told as one cut.
    """
    keep = _kept(graph, plans)
    groups = [group for group in graph.groups if group.id in keep]
    counts = {group.axis.index: len(keep[group.id]) for group in groups}
    fields = solve_fields(graph.relations, graph.fields, counts)
    plan = Plan(
        fingerprint=graph.fingerprint,
        graph_hash=graph.hash,
        axes={group.id: group.axis for group in groups},
        keep={group.id: keep[group.id] for group in groups},
        tensors={
            name: tensor.dims
            for name, tensor in graph.tensors.items()
            if any(axis.index in counts for dim in tensor.dims for axis in axes_of(dim))
        },
        changes=tuple(
            FieldChange(field, before, fields[field])
            for field, before in graph.fields.items()
            if fields.get(field, before) != before
        ),
        before=cost(graph),
        after=cost(graph, counts),
        settings=settings,
        notes=tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
        exact=tuple(group.id for group in groups if group.exact),
        inexact={group.id: "; ".join(group.notes) for group in groups if not group.exact},
        # each step kept every scale as it was, so all steps together do
        folds=folds_of(graph.scales, counts, graph.fields, {**graph.fields, **fields}),
    )
    _check_shapes(plan, final)
    return plan


def _kept(graph: Graph, plans: Sequence[Plan]) -> dict[str, tuple[int, ...]]:
    """Kept units of every group that loses some, as indices of the dense model."""
    sizes = {group.id: group.size for group in graph.groups}
    keep: dict[str, tuple[int, ...]] = {}
    for plan in plans:
        for id, units in plan.keep.items():
            before = keep.get(id, tuple(range(sizes.get(id, 0))))
            if plan.axes[id].size != len(before):
                raise CutError(
                    f"group {id!r} has {plan.axes[id].size} units after earlier steps where the "
                    f"dense model leads to {len(before)}, so the steps cannot be saved as one "
                    "plan; prune in one step (leave out the loop)"
                )
            keep[id] = tuple(before[unit] for unit in units)
    return keep


def _check_shapes(plan: Plan, final: nn.Module) -> None:
    for name, tensor in named_tensors(final):
        if name in plan.tensors and plan.shape(name) != tuple(tensor.shape):
            raise CutError(
                f"{name} has shape {tuple(tensor.shape)} after the last step and "
                f"{plan.shape(name)} by the steps' common plan; prune in one step (leave out the "
                "loop)"
            )
