"""The common shape of several tensors, and their types in it; rules of several files need it."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.call import broadcast
from secateur.graph.types import Dims, size_of


def sizes_of(dims: Dims) -> list[int]:
    """The shape of a tensor of these types."""
    return [size_of(product) for product in dims]


def broadcast_together(operands: Sequence[Dims], where: str) -> Dims:
    """Types of the broadcast of several tensors to their common shape."""
    shape = [1] * max(len(dims) for dims in operands)
    for dims in operands:
        for k, size in enumerate(sizes_of(dims), start=len(shape) - len(dims)):
            if size != 1:
                shape[k] = size
    return broadcast(operands, shape, where)
