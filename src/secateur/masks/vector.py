"""The simplest case: one plain tensor, such as a vector of weights, with its small entries zeroed.

``w = w if abs(w) > t else 0``, or the same by the share that shall be zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.masks.keys import INFINITY, Source, key_of
from secateur.masks.selection import below, kept_by, smallest


def prune_vector(
    weights: Tensor, *, threshold: float | None = None, sparsity: float | None = None
) -> Tensor:
    """A copy of a tensor of any shape in which small entries are zero.

    threshold: entries of a magnitude of at most this go. sparsity: instead, the share that goes,
    the smallest first; of equal ones the earlier.
    Raises: ScoreError for NaN, infinite or missing values; ValueError for other arguments.

    >>> prune_vector(torch.tensor([0.3, -0.05, 0.1, -2.0]), threshold=0.1).tolist()
    [0.30000001192092896, 0.0, 0.0, -2.0]
    >>> prune_vector(torch.tensor([3.0, -1.0, 2.0, -4.0]), sparsity=0.5).tolist()
    [3.0, 0.0, 0.0, -4.0]
    """
    if (threshold is None) == (sparsity is None):
        raise ValueError("give threshold=0.1 or sparsity=0.5, one of them")
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"a threshold of magnitudes is at least 0, not {threshold}")
    if sparsity is not None and not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity is the share of zeros, in [0, 1], not {sparsity}")
    if weights.dtype not in INFINITY or weights.is_meta:
        raise ScoreError(
            f"a tensor of type {weights.dtype} on {weights.device} has no magnitudes to compare; "
            "give floating-point values, for example weights.float()"
        )
    if not weights.numel():
        return weights.clone()
    source = Source("the tensor", weights, weights.dtype)
    if threshold is not None:
        limit = below([source], key_of(threshold, weights.dtype))
    else:
        limit = smallest([source], round((sparsity or 0.0) * len(source)))
    return torch.where(kept_by(source, limit, 0), weights, 0)
