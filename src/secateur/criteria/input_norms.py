"""The norm of what each weight is multiplied with, over all calibration data, for `wanda`.

Of a convolution a feature is a channel, at all positions of its image, whatever the kernel's taps
see of it. Transposed convolutions are not watched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.world import ALONE, World
from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.running import run_batches


def input_norms(
    model: nn.Module, data: Iterable[Any], *, world: World = ALONE
) -> dict[str, Tensor]:
    """L2 norms in the parameters' shapes, by name; parameters that multiply nothing are absent."""
    parameters = dict(model.named_parameters())
    sums = ExactSums()

    def seen(use: Use) -> None:
        whole = parameters[use.name]
        offset = use.weight.storage_offset() - whole.storage_offset()
        groups = 0 if use.window is None else use.window.groups
        part = [use.name, offset, list(use.weight.shape), list(use.weight.stride()), groups]
        sums.add_one_(json.dumps(part), _squares(use, _wide(whole)).cpu())

    with watched_uses(model, seen):
        run_batches(model, data)
    sums.reduce_(world, what="norms of inputs")
    squares: dict[str, Tensor] = {}
    for part in sorted(sums):  # parts may overlap: always in the same order
        name, *where = json.loads(part)
        total, _ = sums.take(part)
        whole = parameters[name]
        if name not in squares:
            # the parameter's own strides, so that a part of it is the same part of this
            squares[name] = torch.zeros_like(
                whole, dtype=_wide(whole), memory_format=torch.preserve_format
            )
        if squares[name].stride() == whole.stride():
            _spread_(squares[name], total, *where)
        # else laid out with gaps: its parts cannot be found again
    return {name: square.sqrt_() for name, square in squares.items()}


def _squares(use: Use, dtype: torch.dtype) -> Tensor:
    """The squared norm of each feature that was read; of a convolution by its groups."""
    if use.window is None:
        return use.read.to(dtype).square().sum(0)
    others = [k for k in range(use.read.dim()) if k != 1]
    return use.read.to(dtype).square().sum(others).reshape(use.window.groups, -1)


def _spread_(
    whole: Tensor, norms: Tensor, offset: int, shape: list[int], stride: list[int], groups: int
) -> None:
    """Add squared norms to all weights of a part that they multiplied."""
    part, norms = whole.as_strided(shape, stride, offset), norms.to(whole)
    if not groups:
        part.add_(norms[:, None])
        return
    norms = norms.reshape(*norms.shape, *(1 for _ in shape[2:]))
    torch.unflatten(part, 0, (groups, -1)).add_(norms[:, None])


def _wide(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype.itemsize >= 4 else torch.float32
