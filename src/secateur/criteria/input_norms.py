"""The norm of what each weight is multiplied with, over all calibration data, for `wanda`.

Of a convolution a feature is a channel, at all positions of its image, whatever the kernel's taps
see of it. Transposed convolutions are not watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.running import run_batches


def input_norms(model: nn.Module, data: Iterable[Any]) -> dict[str, Tensor]:
    """L2 norms in the parameters' shapes, by name; parameters that multiply nothing are absent."""
    parameters = dict(model.named_parameters())
    squares: dict[str, Tensor] = {}

    def seen(use: Use) -> None:
        whole = parameters[use.name]
        if use.name not in squares:
            # the parameter's own strides, so that a part of it is the same part of this
            squares[use.name] = torch.zeros_like(
                whole, dtype=_wide(whole), memory_format=torch.preserve_format
            )
        target = squares[use.name]
        if target.stride() != whole.stride():
            return  # laid out with gaps: its parts cannot be found again
        offset = use.weight.storage_offset() - whole.storage_offset()
        part = target.as_strided(use.weight.shape, use.weight.stride(), offset)
        _add_squares_(part, use)

    with watched_uses(model, seen):
        run_batches(model, data)
    return {name: square.sqrt_() for name, square in squares.items()}


def _add_squares_(part: Tensor, use: Use) -> None:
    """Add the squared norms of what was read to the weights that multiplied it."""
    if use.window is None:
        norm_K = use.read.to(part.dtype).square().sum(0)
        part.add_(norm_K[:, None])
        return
    groups = use.window.groups
    others = [k for k in range(use.read.dim()) if k != 1]
    norm_GK = use.read.to(part.dtype).square().sum(others).reshape(groups, -1)
    shape = (*norm_GK.shape, *(1 for _ in range(part.dim() - 2)))
    torch.unflatten(part, 0, (groups, -1)).add_(norm_GK.reshape(shape)[:, None])


def _wide(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype.itemsize >= 4 else torch.float32
