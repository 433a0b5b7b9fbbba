"""The norm of all gradients of a model that ranks share out, and clipping by it.

Squares of what is shared out are added over the ranks; what every rank has counts once. The norm is
the same number on all ranks, and that of the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from secateur.core.world import World
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.masks.dense import dense_tensors


def clip_gradients_(
    model: nn.Module, plan: TensorParallelPlan, world: World, *, max_norm: float
) -> float:
    """Scale all gradients so that their norm together is at most `max_norm`; returns what it was.

    Called by every rank, after the backward (and, under mixed precision, after unscaling). Of
    parameters that FSDP2 shards too the norm over its ranks is taken.
    """
    shared, replicated = list[Tensor](), list[Tensor]()
    seen: set[int] = set()
    for name, tensor in dense_tensors(model).items():
        if tensor.grad is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            (shared if name in plan.tensors else replicated).append(tensor.grad)
    squares = torch.stack([_square(shared)])
    world.sum_([squares], what="the norm of the gradients")
    norm = float((squares + _square(replicated)).sqrt())
    if not norm + 1e-6 <= max_norm:  # where it is not finite too, on every rank
        for gradient in (*shared, *replicated):
            gradient.mul_(max_norm / (norm + 1e-6))
    return norm


def _square(gradients: Iterable[Tensor]) -> Tensor:
    """The sum of all squares."""
    total = torch.zeros((), dtype=torch.float64)
    for gradient in gradients:
        norm = torch.linalg.vector_norm(gradient.detach())
        total += _whole(norm).double().cpu() ** 2
    return total


def _whole(value: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
