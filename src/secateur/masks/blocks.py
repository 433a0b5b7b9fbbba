"""Blocks: weights that go together, R of the outputs by C of the inputs, at each place of a kernel.

A block's score is the sum of its weights' scores, or the largest for a criterion that combines
units so; a block at the edge may be smaller and its sum with it. Blocks are then ranked as weights
are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.masks.keys import Source
from secateur.masks.patterns import Pattern
from secateur.masks.scores import Asked, elements, wide
from secateur.masks.targets import Target

_AT_ONCE = 1 << 20
"""Scores made before they are summed."""


def block_sources(
    model: nn.Module, wanted: Sequence[Target], asked: Asked, pattern: Pattern
) -> list[Source]:
    """One source for each target, with one score a block; raises as `scores.sources`."""
    largest = vars(asked.rule).get("POWER") == math.inf
    if asked.ranks_magnitudes:  # pointwise, so that a part of the weights is scored at a time
        totals = [block_totals(t.parameter, t.kept, asked.rule, pattern) for t in wanted]
    else:
        scores = elements(model, wanted, asked)
        pairs = zip(wanted, scores, strict=True)
        totals = [_summed(s, t.kept, pattern, largest=largest) for t, s in pairs]
    dtype = torch.float64 if any(s.dtype is torch.float64 for s in totals) else torch.float32
    return [
        Source(t.name, s.to(dtype), dtype, signed=True, kept=blocks_kept(t.kept, pattern))
        for t, s in zip(wanted, totals, strict=True)
    ]


def spread(kept: Tensor, weights: Tensor, before: Tensor | None, pattern: Pattern) -> Tensor:
    """The mask of weights of which these blocks stay; what was masked before stays masked."""
    wide = kept.repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.columns, 1)
    rows, columns = weights.shape[:2]
    mask = torch.empty_like(weights, dtype=torch.bool, requires_grad=False)
    mask.copy_(wide[:rows, :columns])
    return mask if before is None else mask & before


def block_totals(
    weights: Tensor, kept: Tensor | None, rule: ModuleType, pattern: Pattern
) -> Tensor:
    """Block scores of weights by a criterion that ranks magnitudes, some rows of blocks at a
    time."""
    rows = max(1, _AT_ONCE * len(weights) // max(weights.numel(), 1) // pattern.rows)
    rows *= pattern.rows
    parts = []
    for k in range(0, len(weights), rows):
        scores = rule.element(wide(weights[k : k + rows]))
        some = None if kept is None else kept[k : k + rows]
        parts.append(_summed(scores, some, pattern, largest=False))
    return torch.cat(parts)


def _summed(scores: Tensor, kept: Tensor | None, pattern: Pattern, *, largest: bool) -> Tensor:
    if kept is not None:
        scores = torch.where(kept, scores, 0)
    rows, columns = scores.shape[:2]
    missing = (-columns % pattern.columns, -rows % pattern.rows)
    padded = F.pad(scores, (0, 0) * (scores.ndim - 2) + (0, missing[0], 0, missing[1]))
    rows, columns, *rest = padded.shape
    split_RrCcK = padded.reshape(
        rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns, *rest
    )
    return split_RrCcK.amax((1, 3)) if largest else split_RrCcK.sum((1, 3))


def blocks_kept(kept: Tensor | None, pattern: Pattern) -> Tensor | None:
    """Blocks that an earlier mask left something of."""
    return None if kept is None else _summed(kept.float(), None, pattern, largest=True) > 0
