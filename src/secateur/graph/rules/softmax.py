"""Softmax and its kin: the shape stays, the normalised dimension is flagged."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, broadcast, dims_of, handles, wrap
from secateur.graph.rules.broadcasting import sizes_of
from secateur.graph.types import Dims, flag


@handles(
    "softmax",
    "log_softmax",
    "_softmax",
    "_log_softmax",
    "_safe_softmax",
    "_masked_softmax",
    "special_softmax",
    "special_log_softmax",
)
def softmax(call: OpCall) -> Dims:
    x = call.dims("self")
    mask = call.get("mask")
    if isinstance(mask, Tensor):
        broadcast([x, dims_of(mask)], sizes_of(x), call.where)
    if x:
        dim = call.get("dim", -1)
        flag(x[wrap(-1 if dim is None else int(dim), len(x))], "renormalised", "softmax over it")
    return x
