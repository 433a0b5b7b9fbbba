"""The naive answers that masks are compared with: full sorts and plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def kept_by_sorting(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """What stays when the first `count` of a stable sort over all scores go."""
    joined = torch.cat([s.double().reshape(-1) for s in scores])
    kept = torch.ones(len(joined), dtype=torch.bool)
    kept[torch.sort(joined, stable=True).indices[:count]] = False
    parts = kept.split([s.numel() for s in scores])
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)]


def kept_n_of_m(scores: Tensor, *, input_dim: int, keep: int, of: int) -> Tensor:
    """N:M by loops: of every M along the inputs, the N that a stable sort puts last."""
    kept = torch.zeros(scores.shape, dtype=torch.bool)
    rows, out = scores.movedim(input_dim, -1), kept.movedim(input_dim, -1)
    flat, flat_out = rows.reshape(-1, rows.shape[-1]), torch.zeros(rows.shape, dtype=torch.bool)
    flat_out = flat_out.view(-1, rows.shape[-1])
    for r, row in enumerate(flat.tolist()):
        for start in range(0, len(row), of):
            order = sorted(range(of), key=lambda k: row[start + k])
            for k in order[of - keep :]:
                flat_out[r, start + k] = True
    out.copy_(flat_out.view(rows.shape))
    return kept
