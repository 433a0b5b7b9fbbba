"""N:M: of every M weights that follow each other along the input dimension, the N best stay.

The form that sparse tensor cores read is 2:4 (Mishra et al., Accelerating Sparse Deep Neural
Networks, 2021, arXiv 2104.08378). A convolution's groups lie along its input channels, at each
place of the kernel. Of equal scores the earlier goes, as in a stable sort.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.masks.keys import CHUNK, Keys, Source
from secateur.masks.selection import each, refuse_not_finite


def keep_n_of_m(source: Source, *, input_dim: int, keep: int, of: int) -> Tensor:
    """What stays of a source's tensor; the size of `input_dim` is a multiple of `of`.

    Raises: ScoreError for NaN and infinite scores.
    """
    tensor = source.tensor
    kept = torch.empty_like(tensor, dtype=torch.bool, device="cpu", requires_grad=False)
    moved = kept.movedim(input_dim, -1)
    height = max(1, CHUNK * len(moved) // max(1, len(source)))

    def fill(start: int) -> None:
        keys = source.rows(start, start + height, last=input_dim)
        refuse_not_finite(source, keys)
        best = _best(np.ascontiguousarray(keys.reshape(-1, of).T), keep)
        part = moved[start : start + height]
        part.copy_(torch.from_numpy(np.ascontiguousarray(best.T)).view(part.shape))

    each(fill, range(0, len(moved), height))
    return kept.to(tensor.device)


def _best(keys_MG: Keys, keep: int) -> NDArray[np.bool_]:
    """Where the `keep` largest of each column of M keys are: compared two by two, row by row."""
    of = len(keys_MG)
    lower_MG = np.zeros(keys_MG.shape, dtype=np.uint8)  # how many of the M come before this one
    for i in range(of):
        for j in range(i + 1, of):
            first = keys_MG[i] <= keys_MG[j]
            lower_MG[j] += first
            lower_MG[i] += ~first
    best: NDArray[np.bool_] = lower_MG >= of - keep
    return best
