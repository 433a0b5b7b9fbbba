"""From a graph and its model to scores: one number per unit of every free group.

The only place that knows tensors, groups and data together; criteria see one matrix at a time.
Gradients are taken batch by batch and the scores averaged over the batches. Scores are raw:
whether groups are made comparable is the selector's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
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
from secateur.core.world import ALONE, World
from secateur.criteria.activations import activations_at, unit_activations
from secateur.criteria.blocks import score_blocks
from secateur.criteria.divided import divided
from secateur.criteria.evidence import Calibration, averaged, evidence_kind, needs_data, rounds
from secateur.criteria.gradients import LossFn
from secateur.criteria.marginals import Marginals, is_short, terms_of
from secateur.criteria.matrices import (
    Context,
    Matrices,
    UnitMatrix,
    combined,
    context_of,
    parameter_members,
    rooted,
)
from secateur.criteria.next_layers import errors_of_next_layers
from secateur.criteria.scales import only_scales
from secateur.criteria.sensitivity import errors_of_outputs
from secateur.criteria.sound import check_finite, check_present
from secateur.criteria.synaptic import ones_for
from secateur.criteria.together import together


def score(
    graph: Graph,
    model: nn.Module,
    *,
    criterion: str = "l2",
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
    world: World = ALONE,
) -> Scores:
    """One float64 score per unit of each free group, higher is more important.

    data: calibration batches for criteria that look at gradients or activations, see
    `criteria.gradients`; targets are not looked at where there is no loss. seed: of criteria that
    draw numbers. A free group of which the criterion sees nothing, for example one without any
    floating-point parameter, gets no score. A criterion that looks at the stream, "block_output",
    scores whole blocks instead, by their path.

    world: ranks that score together. Each is given the same model and the same data, whole, runs
    a part of the batches, and gets the same scores, bit for bit those of one process with as many
    threads as each of them has.

    Raises: ScoreError for missing data, NaN or infinite tensors and weights on meta, and data that
    differ between ranks; PlanMismatchError when the graph is another model's; ValueError for an
    unknown criterion; EngineError when ranks hold different models. All ranks raise the same.
    """
    with together(world, what=f"scores by {criterion}") as ranks:
        rule = find("secateur.criteria", criterion, kind="criterion")
        check_model(graph, model)
        if "stream" in rule.NEEDS:
            return score_blocks(graph, model, criterion=criterion, data=data, world=ranks)
        told = Calibration(criterion, data, loss_fn, seed, ranks)
        return _scores_by(rule, graph, model, told.agreed(model, graph))


def _scores_by(rule: ModuleType, graph: Graph, model: nn.Module, told: Calibration) -> Scores:
    criterion, data, seed, world = told.criterion, told.data, told.seed, told.world
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
    if "activations" in rule.NEEDS:
        return _by_activations(rule, graph, model, told)
    if rule.NEEDS & {"input_moments", "outputs"}:
        if data is None:
            raise needs_data(criterion, with_loss=False)
        if "outputs" in rule.NEEDS:
            return errors_of_outputs(graph, model, data, rule.rise, world=world)
        return errors_of_next_layers(graph, model, data, rule.error, world=world)
    if "norm_scale" in rule.NEEDS:
        graph = only_scales(graph)
    kind = evidence_kind(rule)
    if kind is None:
        return _scores(rule, graph, tensors, seed, world=world)
    if kind == "synaptic_gradient" and data is None:
        told = replace(told, data=ones_for(graph))
    found = rounds(kind, model, told)
    scores = averaged(kind, found, partial(_scores, rule, graph, tensors, seed), world=world)
    return {group.id: scores[group.id] for group in graph.free if group.id in scores}


def check_model(graph: Graph, model: nn.Module) -> None:
    """Raises: PlanMismatchError that names the first difference of graph and model."""
    if fingerprint(model) == graph.fingerprint:
        return
    tensors = dict(named_tensors(model))
    for name, tensor in graph.tensors.items():
        shape = tuple(dim_size(dim) for dim in tensor.dims)
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if shape != found:
            raise PlanMismatchError(
                f"the graph is another model's: {name} has shape {shape} there and is {found} "
                "here; trace this model again with trace(model, example_inputs)"
            )
    raise PlanMismatchError(
        f"the graph is another model's: modules or tensors of {type(model).__name__} differ "
        "from those traced; trace this model again with trace(model, example_inputs)"
    )


def _sums(rule: ModuleType, graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `_scores` for a criterion that sums one term for each weight: each is read once."""
    vectors = {
        name: tensors[name]
        for name, kind in graph.tensors.items()
        if kind.is_parameter and len(kind.dims) == 1 and is_short(tensors[name])
    }
    known = {name: {0: sums} for name, sums in terms_of(vectors, rule.TERM).items()}
    marginals, scores = Marginals(rule.TERM), {}
    own = {group.id: _members(graph, group, tensors) for group in graph.free}
    dims: dict[str, set[int]] = {}
    for member in chain.from_iterable(own.values()):
        dims.setdefault(member.tensor, set()).add(member.dim)
    for group in graph.free:
        members = own[group.id]
        if not members:
            continue
        total_U = torch.zeros(group.size, dtype=torch.float64)
        for member in members:
            name = member.tensor
            if name not in known:
                known[name] = marginals(tensors[name], dims[name])
            dim = graph.tensors[name].dims[member.dim]
            if dim == (group.axis,):
                total_U += known[name][member.dim]
                continue
            for rows in unit_rows(known[name][member.dim], 0, dim, group.axis):
                total_U += rows.sum(1)
        scores[group.id] = total_U ** (1 / rule.POWER)
    # a finite sum is one of finite numbers, so only the other tensors are looked at again
    sound = {name for name, sums in known.items() if _is_finite(sums)}
    check_finite(graph, tensors, known=sound)
    return scores


def _is_finite(sums: Mapping[int, Tensor]) -> bool:
    return math.isfinite(next(iter(sums.values())).sum())


def _scores(
    rule: ModuleType,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    seed: int,
    evidence: Mapping[str, Tensor] | None = None,
    *,
    world: World = ALONE,
) -> dict[str, Tensor]:
    """Scores of all groups that have a parameter, from weights and one round of evidence.

    world: ranks that divide the groups among them.
    """
    found: dict[str, Matrices] = {}
    for group in graph.free:
        members = _members(graph, group, tensors)
        if not members:
            continue
        if evidence is not None and not any(member.tensor in evidence for member in members):
            if evidence_kind(rule) == "input_norm":
                continue
            raise _unreached(group, members)
        found[group.id] = Matrices(graph, group, members, tensors, evidence)
    groups = [matrices.group for matrices in found.values()]

    def work(k: int) -> Tensor:
        context = context_of(groups[k].id, groups[k].size, seed)
        return _of_group(rule, found[groups[k].id], context)

    # what looks at all of a group, pairs of its units for example, is worth dividing
    world = world if "of_group" in vars(rule) else ALONE
    costs = [
        g.size * sum(tensors[member.tensor].numel() for member in found[g.id].members)
        for g in groups
    ]
    shapes = [[group.size] for group in groups]
    scores = divided(work, shapes, costs=costs, world=world, what="scores of groups")
    return dict(zip(found, scores, strict=True))


def _by_activations(
    rule: ModuleType, graph: Graph, model: nn.Module, told: Calibration
) -> dict[str, Tensor]:
    """Scores of all groups whose activations a weight reads or makes."""
    if told.data is None:
        raise needs_data(told.criterion, with_loss=False)
    tensors, scores = dict(named_tensors(model)), {}
    places = activations_at(model, told.data, world=told.world)
    for group in graph.free:
        found = unit_activations(graph, group, places)
        if found is not None:
            context = context_of(group.id, group.size, told.seed, found)
            matrices = Matrices(graph, group, _members(graph, group, tensors), tensors)
            scores[group.id] = _of_group(rule, matrices, context)
    return scores


def _of_group(rule: ModuleType, matrices: Matrices, context: Context) -> Tensor:
    """The members' importances combined, or what the criterion makes of all of them."""
    if "of_group" in vars(rule):
        whole: Tensor = rule.of_group(matrices, context)
        return whole.to("cpu", torch.float64)
    total_U = torch.zeros(context.units, dtype=torch.float64)
    for matrix in matrices:
        one_U = _one(rule, matrix, context)
        total_U = combined(total_U, one_U, rule.POWER)
    return rooted(total_U, rule.POWER)


def _unreached(group: Group, members: list[Member]) -> ScoreError:
    return ScoreError(
        f"no gradient reaches group {group.id!r} ({', '.join(m.tensor for m in members)}): "
        "its parameters are frozen or the loss does not depend on them; call "
        "requires_grad_(True) on one, or use a criterion such as 'l2'"
    )


def _one(rule: ModuleType, matrix: UnitMatrix, context: Context) -> Tensor:
    values: Tensor = rule.importance(matrix, context)
    return values.to("cpu", torch.float64)


def _members(graph: Graph, group: Group, tensors: Mapping[str, Tensor]) -> list[Member]:
    """Members with something to score: floating-point parameters."""
    return [m for m in parameter_members(graph, group) if tensors[m.tensor].is_floating_point()]
