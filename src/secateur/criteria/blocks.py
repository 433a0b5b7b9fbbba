"""Scores of whole residual blocks, keyed by the block's path, one number each.

A criterion that looks at the stream (`block_output`) runs the model over calibration data. Every
other criterion sees each parameter of the block as one unit, and they combine as the members of a
group do. Pinned blocks get no score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.blocks import Block, inside
from secateur.core.dims import axes_of
from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.lookup import find
from secateur.core.modes import evaluating
from secateur.core.plan import Scores
from secateur.criteria.evidence import evidence_kind, rounds
from secateur.criteria.gradients import LossFn
from secateur.criteria.matrices import UnitMatrix, combined, context_of, rooted
from secateur.criteria.running import run_batch
from secateur.criteria.sound import check_tensors
from secateur.criteria.synaptic import ones_for
from secateur.graph.bypass import bypassed, watched_streams


def score_blocks(
    graph: Graph,
    model: nn.Module,
    *,
    criterion: str = "block_output",
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
    greedy: bool = False,
) -> Scores:
    """One float64 score, of shape [1], for each block that may be removed; higher stays.

    data: calibration batches, see `criteria.gradients`; targets in them are not looked at by
    `block_output`. greedy: of a criterion that looks at the stream, score again after each
    removal; the scores are then the order of removal, 0 for the first.

    Raises: ScoreError for missing data or a stream that is not finite; ValueError for an unknown
    criterion, or greedy with one that does not look at the stream.
    """
    rule = find("secateur.criteria", criterion, kind="criterion")
    blocks = [block for block in graph.blocks if block.pinned is None]
    if "stream" in rule.NEEDS:
        if data is None:
            raise ScoreError(
                f"criterion {criterion!r} runs the model, so it needs data: type "
                f"score(graph, model, criterion={criterion!r}, data=loader)"
            )
        batches = list(data)
        if greedy:
            return _greedy(rule, graph, model, blocks, batches)
        return _changes(rule, graph, model, blocks, batches, ())
    if greedy:
        raise ValueError(f"greedy: criterion {criterion!r} does not change when a block goes")
    _check_compares_no_units(rule, criterion)
    tensors = dict(named_tensors(model))
    if rule.NEEDS:
        check_tensors(graph, tensors, criterion)
    kind = evidence_kind(rule)
    if kind is None:
        return _importances(rule, graph, blocks, tensors, None, seed)
    if kind == "synaptic_gradient" and data is None:
        data = ones_for(graph)
    runs = [
        _importances(rule, graph, blocks, tensors, evidence, seed)
        for evidence in rounds(
            kind, model, criterion=criterion, data=data, loss_fn=loss_fn, seed=seed
        )
    ]
    return {path: torch.stack([run[path] for run in runs]).mean(0) for path in runs[0]}


def _check_compares_no_units(rule: ModuleType, criterion: str) -> None:
    if "importance" not in vars(rule) or "norm_scale" in rule.NEEDS:
        raise ScoreError(
            f"criterion {criterion!r} compares the units of a group and says nothing of a whole "
            "block; type criterion='block_output' with data, or criterion='l2'"
        )


def _greedy(
    rule: ModuleType, graph: Graph, model: nn.Module, blocks: list[Block], batches: list[Any]
) -> dict[str, Tensor]:
    gone: list[Block] = []
    while len(gone) < len(blocks):
        left = [block for block in blocks if block not in gone]
        scores = _changes(rule, graph, model, left, batches, gone)
        gone.append(min(left, key=lambda block: float(scores[block.path])))
    return {
        block.path: torch.tensor([float(gone.index(block))], dtype=torch.float64)
        for block in blocks
    }


def _changes(
    rule: ModuleType,
    graph: Graph,
    model: nn.Module,
    blocks: Collection[Block],
    batches: list[Any],
    gone: Collection[Block],
) -> dict[str, Tensor]:
    """The mean change of each block's stream, with `gone` passing theirs on."""
    widths = {block.path: _width_dim(graph, block) for block in blocks}
    total = {block.path: [0.0, 0] for block in blocks}

    def seen(block: Block, given: Tensor, returned: Tensor) -> None:
        rows = [
            tensor.movedim(widths[block.path], -1).flatten(0, -2) for tensor in (given, returned)
        ]
        change_P: Tensor = rule.change(*rows)
        total[block.path][0] += float(change_P.sum())
        total[block.path][1] += change_P.numel()

    watch = watched_streams(model, blocks, seen)
    with evaluating(model), torch.no_grad(), bypassed(model, gone), watch:
        for batch in batches:
            run_batch(model, batch)
    return {path: _mean(path, value, int(count)) for path, (value, count) in total.items()}


def _mean(path: str, value: float, count: int) -> Tensor:
    if count == 0:
        raise ScoreError(f"block {path} ran on no calibration batch; pass a loader with batches")
    mean = torch.tensor([value / count], dtype=torch.float64)
    if not mean.isfinite():
        raise ScoreError(f"the stream of block {path} holds NaN or infinite values on this data")
    return mean


def _width_dim(graph: Graph, block: Block) -> int:
    """Which dimension of the stream is its width: the one that most of the block's weights have."""
    call = next(call for call in graph.calls if call.module == block.path)
    found: dict[int, int] = {}
    for name, tensor in graph.tensors.items():
        if tensor.is_parameter and inside(name, block.path):
            for axis in {axis.index for dim in tensor.dims for axis in axes_of(dim)}:
                found[axis] = found.get(axis, 0) + 1
    counts = [
        max((found.get(axis.index, 0) for axis in axes_of(dim)), default=0)
        for dim in call.inputs[block.stream].dims
    ]
    return max(range(len(counts)), key=lambda k: (counts[k], k))


def _importances(
    rule: ModuleType,
    graph: Graph,
    blocks: Iterable[Block],
    tensors: Mapping[str, Tensor],
    evidence: Mapping[str, Tensor] | None,
    seed: int,
) -> dict[str, Tensor]:
    scores = {}
    for block in blocks:
        context = context_of(block.path, 1, seed)
        if not rule.NEEDS:
            scores[block.path] = rule.importance(UnitMatrix(torch.empty(1, 0)), context)
            continue
        total = torch.zeros(1, dtype=torch.float64)
        for name, kind in graph.tensors.items():
            found = None if evidence is None else evidence.get(name)
            unseen = evidence is not None and found is None
            if kind.is_parameter and inside(name, block.path) and not unseen:
                matrix = UnitMatrix(_row(tensors[name]), None if found is None else _row(found))
                values: Tensor = rule.importance(matrix, context)
                total = combined(total, values.to("cpu", torch.float64), rule.POWER)
        scores[block.path] = rooted(total, rule.POWER)
    return scores


def _row(tensor: Tensor) -> Tensor:
    return tensor.detach().float().reshape(1, -1)
