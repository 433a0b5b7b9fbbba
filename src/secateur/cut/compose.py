"""Several plans, each for the model that the one before makes, as one plan for the dense model.

The iterative loop, and pruning while training, cut step by step; what is saved and proved is one
cut of the dense model. Unit 5 of a group that was cut to (0, 3, 4, 7, 8, 9) is unit 9 of the dense
group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from secateur.core.errors import CutError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.select.fields import solve_fields


def compose(
    graph: Graph, plans: Sequence[Plan], *, final: nn.Module, settings: Mapping[str, Any]
) -> Plan:
    """The plan that cuts the model of `graph` as `plans` cut it one after another.

    final: the model after the last plan, with which every shape is compared.
    Raises: CutError when the steps cannot be told as one cut.
    """
    if any(plan.removed for plan in plans):
        raise CutError(
            "steps that remove whole blocks cannot be saved as one plan, for each numbers the "
            "layers anew; prune in one step (leave out the loop), or leave out blocks"
        )
    keep = _kept(graph, plans)
    counts = {graph.group(id).axis.index: len(units) for id, units in keep.items()}
    plan = Plan.of(
        graph,
        keep,
        solve_fields(graph.relations, graph.fields, counts),
        before=cost(graph),
        after=cost(graph, counts),
        settings=settings,
        notes=tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
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
