"""Activations that are more than pointwise: gated halves, a slope for each channel."""

from __future__ import annotations

from secateur.graph.call import OpCall, handles, wrap
from secateur.graph.types import Dims, size_of, split_sizes, unify


@handles("glu")
def glu(call: OpCall) -> Dims:
    """The first half times the sigmoid of the second, so unit i of both goes together."""
    x = call.dims("self")
    dim = wrap(int(call.get("dim", -1)), len(x))
    half = size_of(x[dim]) // 2
    values, gates = split_sizes(x[dim], [half, half])
    unify(values, gates, call.where)
    return (*x[:dim], values, *x[dim + 1 :])


@handles("prelu")
def prelu(call: OpCall) -> Dims:
    """One slope for all, or one for each channel (dimension 1)."""
    x, slope = call.dims("self"), call.dims("weight")
    if slope and size_of(slope[0]) > 1:
        unify(x[1], slope[0], call.where)
    return x
