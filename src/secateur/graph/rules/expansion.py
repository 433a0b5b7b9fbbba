"""Copies of a tensor's elements: expand, repeat, repeat_interleave.

The number of copies is a dimension of its own: outside the repeated one for `repeat`, inside it
for `repeat_interleave`.
"""

from __future__ import annotations

from itertools import chain, repeat

from torch import Tensor

from secateur.graph.call import OpCall, dims_of, handles, wrap
from secateur.graph.rules.broadcasting import broadcast_together
from secateur.graph.types import Dims, fresh, pin, size_of


def _aligned(x: Dims, n: int) -> Dims:
    """The dimensions with size-1 ones put before them, `n` in all."""
    return (*repeat((), n - len(x)), *x)


@handles("expand", "expand_copy", "broadcast_to")
def expand(call: OpCall) -> Dims:
    shape = tuple(call.out.shape)
    return tuple(
        product if size_of(product) == size else fresh(size)
        for product, size in zip(_aligned(call.dims("self"), len(shape)), shape, strict=True)
    )


@handles("expand_as")
def expand_as(call: OpCall) -> Dims:
    return broadcast_together([call.dims("self"), call.dims("other")], call.where)


@handles("broadcast_tensors")
def broadcast_tensors(call: OpCall) -> list[Dims | None]:
    result = broadcast_together([dims_of(t) for t in call.get("tensors")], call.where)
    return [result] * len(call.out)


@handles("repeat")
def copy_outside(call: OpCall) -> Dims:
    return _repeated(call.dims("self"), list(call.get("repeats")))


@handles("tile")
def tile(call: OpCall) -> Dims:
    return _repeated(call.dims("self"), list(call.get("dims")))


def _repeated(x: Dims, counts: list[int]) -> Dims:
    n = max(len(counts), len(x))
    counts = [1] * (n - len(counts)) + counts
    return tuple(
        fresh(count) + product for count, product in zip(counts, _aligned(x, n), strict=True)
    )


@handles("repeat_interleave")
def copy_inside(call: OpCall) -> Dims:
    counts, dim = call.get("repeats"), call.get("dim")
    if call.get("self") is None:
        # `repeat_interleave(counts)` alone lists each index as often as its count says
        pin(dims_of(counts)[0], "its units are repeated by position")
        return (fresh(call.out.shape[0], "as many as the counts add up to"),)
    x = call.dims("self")
    if dim is None:
        x, dim = (tuple(chain(*x)),), 0
    dim = wrap(dim, len(x))
    if isinstance(counts, Tensor) and counts.numel() > 1:
        pin(x[dim], "its units are repeated by position")
        copied = fresh(call.out.shape[dim], "as many as the counts add up to")
    else:
        copied = x[dim] + fresh(call.out.shape[dim] // max(1, size_of(x[dim])))
    return (*x[:dim], copied, *x[dim + 1 :])
