"""Scores of whole residual blocks, keyed by the block's path, one number each.

A criterion that looks at the stream (`block_output`) runs the model over calibration data. Every
other criterion sees each parameter of the block as one unit, and they combine as the members of a
group do. Pinned blocks get no score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
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
from secateur.core.world import ALONE, World
from secateur.criteria.evidence import Calibration, averaged, evidence_kind, rounds
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.gradients import LossFn
from secateur.criteria.matrices import UnitMatrix, combined, context_of, rooted
from secateur.criteria.running import run_batch
from secateur.criteria.shares import numbered, repeatable
from secateur.criteria.sound import check_tensors
from secateur.criteria.synaptic import ones_for
from secateur.criteria.together import together
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
    world: World = ALONE,
) -> Scores:
    """One float64 score, of shape [1], for each block that may be removed; higher stays.

    data: calibration batches, see `criteria.gradients`; targets in them are not looked at by
    `block_output`. greedy: of a criterion that looks at the stream, score again after each
    removal; the scores are then the order of removal, 0 for the first. world: as for `score`.

    Raises: ScoreError for missing data or a stream that is not finite; ValueError for an unknown
    criterion, or greedy with one that does not look at the stream.
    """
    with together(world, what=f"scores of blocks by {criterion}") as ranks:
        rule = find("secateur.criteria", criterion, kind="criterion")
        told = Calibration(criterion, data, loss_fn, seed, ranks).agreed(model, graph)
        blocks = [block for block in graph.blocks if block.pinned is None]
        if "stream" in rule.NEEDS:
            return _by_stream(_Streams(rule, graph, model, told), blocks, greedy)
        if greedy:
            raise ValueError(f"greedy: criterion {criterion!r} does not change when a block goes")
        return _by_weights(rule, graph, model, blocks, told)


def _by_stream(streams: _Streams, blocks: list[Block], greedy: bool) -> dict[str, Tensor]:
    """By a criterion that looks at what goes into a block and what comes out."""
    if streams.told.data is None:
        criterion = streams.told.criterion
        raise ScoreError(
            f"criterion {criterion!r} runs the model, so it needs data: type "
            f"score(graph, model, criterion={criterion!r}, data=loader)"
        )
    if not greedy:
        return streams.changes(blocks)
    gone: list[Block] = []
    while len(gone) < len(blocks):
        left = [block for block in blocks if block not in gone]
        scores = streams.changes(left, gone)
        gone.append(min(left, key=lambda block: float(scores[block.path])))
    return {
        block.path: torch.tensor([float(gone.index(block))], dtype=torch.float64)
        for block in blocks
    }


def _by_weights(
    rule: ModuleType, graph: Graph, model: nn.Module, blocks: list[Block], told: Calibration
) -> dict[str, Tensor]:
    """By a criterion that looks at parameters, each of them one unit."""
    _check_compares_no_units(rule, told.criterion)
    tensors = dict(named_tensors(model))
    if rule.NEEDS:
        check_tensors(graph, tensors, told.criterion)
    kind = evidence_kind(rule)
    if kind is None:
        return _importances(rule, graph, blocks, tensors, told.seed)
    if kind == "synaptic_gradient" and told.data is None:
        told = replace(told, data=ones_for(graph))
    found = rounds(kind, model, told)
    score = partial(_importances, rule, graph, blocks, tensors, told.seed)
    scores = averaged(kind, found, score, world=told.world)
    return {block.path: scores[block.path] for block in blocks}


def _check_compares_no_units(rule: ModuleType, criterion: str) -> None:
    if "importance" not in vars(rule) or "norm_scale" in rule.NEEDS:
        raise ScoreError(
            f"criterion {criterion!r} compares the units of a group and says nothing of a whole "
            "block; type criterion='block_output' with data, or criterion='l2'"
        )


class _Streams:
    """The changes of blocks' streams over calibration data."""

    def __init__(self, rule: ModuleType, graph: Graph, model: nn.Module, told: Calibration) -> None:
        self.rule, self.graph, self.model, self.told = rule, graph, model, told
        self._batches = None if told.data is None else repeatable(told.data)

    def changes(self, blocks: Collection[Block], gone: Collection[Block] = ()) -> dict[str, Tensor]:
        """The mean change of each block's stream, with `gone` passing theirs on."""
        assert self._batches is not None
        widths = {block.path: _width_dim(self.graph, block) for block in blocks}
        sums = ExactSums()

        def seen(block: Block, given: Tensor, returned: Tensor) -> None:
            rows = [
                tensor.movedim(widths[block.path], -1).flatten(0, -2)
                for tensor in (given, returned)
            ]
            change_P: Tensor = self.rule.change(*rows)
            sums.add_one_(block.path, change_P.sum().reshape(1).cpu(), count=change_P.numel())

        watch = watched_streams(self.model, blocks, seen)
        with evaluating(self.model), torch.no_grad(), bypassed(self.model, gone), watch:
            for _, batch in numbered(self._batches).pairs:
                run_batch(self.model, batch)
        sums.reduce_(self.told.world, what="changes of streams")
        return {block.path: _mean(block.path, sums) for block in blocks}


def _mean(path: str, sums: ExactSums) -> Tensor:
    total, count = sums.take(path) if path in sums else (None, 0)
    if total is None or count == 0:
        raise ScoreError(f"block {path} ran on no calibration batch; pass a loader with batches")
    mean = total / count
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
    seed: int,
    evidence: Mapping[str, Tensor] | None = None,
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
