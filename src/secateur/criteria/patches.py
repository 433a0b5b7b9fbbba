"""A product with a weight as plain rows: what it reads, unfolded, and what it makes of each row.

A convolution is a matrix product over the patches that its kernel sees. G groups of channels, N
positions, F features (channels of the group, outer, times taps of the kernel), M outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secateur.criteria.contractions import Use, Window

_ENTRIES = 1 << 24
"""Features unfolded at a time: 64 MiB of float32."""


def rows_of(
    use: Use, made: Tensor | None = None, *, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """``(read_GNF, made_GNM)`` of a use, a few images at a time; made: outputs to take instead.

    Without a window there is one group, and the rows are as they are. limit: take every k-th
    position in each direction, so that about so many are left of all.
    """
    made = use.made if made is None else made
    every = _every(made, use.window, limit)
    if use.window is None:
        yield use.read[::every][None], made[::every][None]
        return
    groups = use.window.groups
    kernel = tuple(use.weight.shape[2:])
    made = made[(slice(None), slice(None), *(slice(None, None, every) for _ in kernel))]
    features = math.prod(made.shape[2:]) * use.read.shape[1] * math.prod(kernel)
    step = max(1, _ENTRIES // max(features, 1))
    for start in range(0, len(made), step):
        images = slice(start, start + step)
        made_GNM = torch.unflatten(made[images], 1, (groups, -1)).flatten(3)
        yield (
            unfolded(use.read[images], kernel, use.window, every=every),
            made_GNM.permute(1, 0, 3, 2).flatten(1, 2),
        )


def _every(made: Tensor, window: Window | None, limit: int | None) -> int:
    """Of how many positions in a row one is taken."""
    if limit is None:
        return 1
    spatial = made.dim() - 2 if window is not None else 1
    positions = made.numel() // made.shape[1] if made.numel() else 0
    steps: int = math.ceil((positions / limit) ** (1 / spatial))
    return max(1, steps)


def weight_of(use: Use) -> Float[Tensor, "groups features outputs"]:
    """The weight as the matrix of each group: ``made_GNM = read_GNF @ weight_GFM``."""
    if use.window is None:
        return use.weight[None]
    return torch.unflatten(use.weight, 0, (use.window.groups, -1)).flatten(2).transpose(1, 2)


def unfolded(
    images: Tensor, kernel: tuple[int, ...], window: Window, *, every: int = 1
) -> Float[Tensor, "groups positions features"]:
    """The patches that a convolution's kernel sees of images [batch, channels, ...].

    >>> image = torch.arange(4.0).reshape(1, 1, 4)
    >>> unfolded(image, (2,), Window((1,), (0,), (1,), 1)).tolist()
    [[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]]
    """
    n = len(kernel)
    pads = [side for padding in reversed(window.padding) for side in (padding, padding)]
    patches = nn.functional.pad(images, pads)
    for k, size in enumerate(kernel):
        span = (size - 1) * window.dilation[k] + 1
        # every k-th position is as good as a stride that is k times as long
        patches = patches.unfold(2 + k, span, window.stride[k] * every)
        patches = patches[..., :: window.dilation[k]]
    patches = torch.unflatten(patches, 1, (window.groups, -1))
    # [batch, group, channel, positions..., taps...] to [group, batch, positions..., channel, taps]
    order = (1, 0, *range(3, 3 + n), 2, *range(3 + n, 3 + 2 * n))
    return patches.permute(order).flatten(n + 2).flatten(1, n + 1)
