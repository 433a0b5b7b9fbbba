"""Gradients of all ranks made one, in flat buffers, after a backward in which nobody did it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from secateur.core.world import World

BUFFER = 2**23
"""Elements that are sent at once."""


def average_(parameters: Iterable[nn.Parameter], world: World, *, what: str) -> bool:
    """Every gradient becomes its mean over the ranks; whether some rank had none for a parameter.

    A parameter that no rank has a gradient for is left without one.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return False
    there = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    world.sum_([there], what=what)
    used = [p for p, ranks in zip(trained, there.tolist(), strict=True) if ranks]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for part in _parts([p.grad for p in used if p.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in part])
        world.sum_([flat], what=what)
        flat /= world.size
        pieces = torch.split(flat, [gradient.numel() for gradient in part])
        for gradient, piece in zip(part, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))
    return bool((there < world.size).any())


def _parts(gradients: list[Tensor]) -> list[list[Tensor]]:
    """Of one type each, and of about `BUFFER` elements."""
    parts: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        if not parts or size > BUFFER or parts[-1][0].dtype != gradient.dtype:
            parts.append([])
            size = 0
        parts[-1].append(gradient)
        size += gradient.numel()
    return parts
