"""Tensors joined and taken apart along a dimension: cat is a concatenation, split its inverse."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, broadcast, dims_of, handles, wrap
from secateur.graph.types import Dims, concat, fresh, pin, split_sizes, unify


@handles("cat", "concat", "concatenate")
def cat(call: OpCall) -> Dims:
    tensors: list[Tensor] = list(call.get("tensors"))
    n = call.out.dim()
    # an empty 1-D tensor joins anything, and adds nothing
    parts = [dims_of(t) for t in tensors if t.dim() == n and not (n == 1 and t.numel() == 0)]
    if not parts:
        return dims_of(tensors[0])
    dim = wrap(call.get("dim", 0), n)
    for other in parts[1:]:
        for k in range(n):
            if k != dim:
                unify(parts[0][k], other[k], call.where)
    joined = concat(part[dim] for part in parts)
    return (*parts[0][:dim], joined, *parts[0][dim + 1 :])


@handles("stack", "_stack")
def stack(call: OpCall) -> Dims:
    tensors: list[Tensor] = list(call.get("tensors"))
    x = broadcast([dims_of(t) for t in tensors], tensors[0].shape, call.where)
    dim = wrap(call.get("dim", 0), call.out.dim())
    return (*x[:dim], fresh(len(tensors), "stacked"), *x[dim:])


@handles(
    "split",
    "split_copy",
    "split_with_sizes",
    "split_with_sizes_copy",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "chunk",
    "unsafe_chunk",
    "tensor_split",
)
def split_apart(call: OpCall) -> list[Dims | None]:
    x = call.dims("self")
    dim = wrap(call.get("dim", 0), len(x))
    pieces = split_sizes(x[dim], [int(piece.shape[dim]) for piece in call.out])
    return [(*x[:dim], piece, *x[dim + 1 :]) for piece in pieces]


@handles("unbind", "unbind_copy")
def unbind(call: OpCall) -> list[Dims | None]:
    x = call.dims("self")
    dim = wrap(call.get("dim", 0), len(x))
    pin(x[dim], "single indices of it are selected")
    return [x[:dim] + x[dim + 1 :] for _ in call.out]
