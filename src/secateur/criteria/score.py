"""From a graph and its model to scores: one number per unit of every free group.

The only place that knows tensors, groups and data together; criteria see one matrix at a time.
Gradients are taken batch by batch and the scores averaged over the batches. Scores are raw:
whether groups are made comparable is the selector's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import dim_size, unit_rows
from secateur.core.errors import PlanMismatchError, ScoreError
from secateur.core.fingerprint import fingerprint, named_tensors
from secateur.core.graph import Graph, Group, Member
from secateur.core.lookup import find
from secateur.core.plan import Scores
from secateur.criteria.blocks import score_blocks
from secateur.criteria.gradients import LossFn, batch_gradients
from secateur.criteria.marginals import marginals
from secateur.criteria.matrices import (
    Context,
    UnitMatrix,
    context_of,
    parameter_members,
    unit_matrix,
)
from secateur.criteria.sound import check_finite, check_present, finite


def score(
    graph: Graph,
    model: nn.Module,
    *,
    criterion: str = "l2",
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
) -> Scores:
    """One float64 score per unit of each free group, higher is more important.

    data: calibration batches for criteria that need gradients, see `criteria.gradients`. seed: of
    the random criterion. A free group without any floating-point parameter gets no score. A
    criterion that looks at the stream, "block_output", scores whole blocks instead, by their path.

    Raises: ScoreError for missing data, NaN or infinite tensors and weights on meta;
    PlanMismatchError when the graph is another model's; ValueError for an unknown criterion.
    """
    rule = find("secateur.criteria", criterion, kind="criterion")
    check_model(graph, model)
    if "stream" in rule.NEEDS:
        return score_blocks(graph, model, criterion=criterion, data=data)
    if not rule.NEEDS:
        return {
            group.id: _one(
                rule, UnitMatrix(torch.empty(group.size, 0)), context_of(group.id, group.size, seed)
            )
            for group in graph.free
        }
    tensors = dict(named_tensors(model))
    check_present(graph, tensors, criterion)
    if vars(rule).get("TERM") is not None:
        return _sums(rule, graph, tensors)
    check_finite(graph, tensors)
    if "gradient" not in rule.NEEDS:
        return _scores(rule, graph, tensors, None, seed)
    if data is None:
        raise ScoreError(
            f"criterion {criterion!r} needs gradients, so it needs data: type score(graph, model, "
            f"criterion={criterion!r}, data=loader, loss_fn=torch.nn.functional.cross_entropy)"
        )
    return _mean(
        _scores(rule, graph, tensors, gradients, seed)
        for gradients in batch_gradients(model, data, loss_fn)
    )


def check_model(graph: Graph, model: nn.Module) -> None:
    """Raises: PlanMismatchError that names the first difference of graph and model."""
    tensors = dict(named_tensors(model))
    for name, tensor in graph.tensors.items():
        shape = tuple(dim_size(dim) for dim in tensor.dims)
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if shape != found:
            raise PlanMismatchError(
                f"the graph is another model's: {name} has shape {shape} there and is {found} "
                "here; trace this model again with trace(model, example_inputs)"
            )
    if fingerprint(model) != graph.fingerprint:
        raise PlanMismatchError(
            f"the graph is another model's: modules or tensors of {type(model).__name__} differ "
            "from those traced; trace this model again with trace(model, example_inputs)"
        )


def _sums(rule: ModuleType, graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `_scores` for a criterion that sums one term for each weight: each is read once."""
    known: dict[str, list[Tensor]] = {}
    scores = {}
    for group in graph.free:
        members = [m for m in parameter_members(graph, group) if _floating(tensors, m)]
        if not members:
            continue
        total_U = torch.zeros(group.size, dtype=torch.float64)
        for member in members:
            name = member.tensor
            if name not in known:
                known[name] = marginals(tensors[name], rule.TERM)
            dim = graph.tensors[name].dims[member.dim]
            if dim == (group.axis,):
                total_U += known[name][member.dim]
                continue
            for rows in unit_rows(known[name][member.dim], 0, dim, group.axis):
                total_U += rows.sum(1)
        scores[group.id] = total_U ** (1 / rule.POWER)
    # a finite sum is one of finite numbers, so only the other tensors are looked at again
    sound = {name for name, sums in known.items() if bool(sums[0].sum().isfinite())}
    check_finite(graph, tensors, known=sound)
    return scores


def _scores(
    rule: ModuleType,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor] | None,
    seed: int,
) -> dict[str, Tensor]:
    """Scores of all groups that have a parameter, from weights and one batch's gradients."""
    scores = {}
    for group in graph.free:
        members = [m for m in parameter_members(graph, group) if _floating(tensors, m)]
        if not members:
            continue
        context = context_of(group.id, group.size, seed)
        total_U = torch.zeros(group.size, dtype=torch.float64)
        used = 0
        for member in members:
            matrix = _matrix(graph, group, member, tensors, gradients)
            if matrix is not None:
                total_U += _one(rule, matrix, context) ** rule.POWER
                used += 1
        if not used:
            raise ScoreError(
                f"no gradient reaches group {group.id!r} ({', '.join(m.tensor for m in members)}): "
                "its parameters are frozen or the loss does not depend on them; call "
                "requires_grad_(True) on one, or use a criterion such as 'l2'"
            )
        scores[group.id] = total_U ** (1 / rule.POWER)
    return scores


def _matrix(
    graph: Graph,
    group: Group,
    member: Member,
    tensors: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor] | None,
) -> UnitMatrix | None:
    """A member's matrix, or None where gradients are asked for and it has none."""
    w_UR = unit_matrix(graph, group, member, tensors[member.tensor])
    if gradients is None:
        return UnitMatrix(w_UR)
    gradient = gradients.get(member.tensor)
    if gradient is None:
        return None
    if not finite(gradient):
        raise ScoreError(
            f"the gradient of {member.tensor} holds NaN or infinite values; calibrate in float32 "
            "or with a smaller loss, or use a criterion such as 'l2'"
        )
    return UnitMatrix(w_UR, unit_matrix(graph, group, member, gradient))


def _one(rule: ModuleType, matrix: UnitMatrix, context: Context) -> Tensor:
    values: Tensor = rule.importance(matrix, context)
    return values.to("cpu", torch.float64)


def _mean(batches: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    count = 0
    for scores in batches:
        count += 1
        total = {id: total[id] + s if total else s for id, s in scores.items()}
    return {id: values / count for id, values in total.items()}


def _floating(tensors: Mapping[str, Tensor], member: Member) -> bool:
    return tensors[member.tensor].is_floating_point()
