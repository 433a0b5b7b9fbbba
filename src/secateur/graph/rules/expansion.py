"""Copies of a tensor's elements: expand, repeat, repeat_interleave.

The number of copies is a dimension of its own: outside the repeated one for `repeat`, inside it
for `repeat_interleave`.
"""

from __future__ import annotations

from itertools import chain, repeat

from torch import Tensor

from secateur.graph.call import OpCall, dims_of, handles, wrap
from secateur.graph.types import Dims, fresh, pin, size_of


def _aligned(x: Dims, n: int) -> Dims:
    """The dimensions with size-1 ones put before them, `n` in all."""
    return (*repeat((), n - len(x)), *x)


def _expanded(x: Dims, shape: tuple[int, ...]) -> Dims:
    return tuple(
        product if size_of(product) == size else fresh(size)
        for product, size in zip(_aligned(x, len(shape)), shape, strict=True)
    )


@handles("expand", "expand_copy", "expand_as", "broadcast_to")
def expand(call: OpCall) -> Dims:
    return _expanded(call.dims("self"), tuple(call.out.shape))


@handles("broadcast_tensors")
def broadcast_tensors(call: OpCall) -> list[Dims | None]:
    return [
        _expanded(dims_of(tensor), tuple(out.shape))
        for tensor, out in zip(call.get("tensors"), call.out, strict=True)
    ]


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
