"""Packed sequences: padded ones laid step after step, the finished ones left out.

Which rows there are follows from the lengths, so positions are pinned; features pass through.
"""

from __future__ import annotations

from secateur.graph.call import NoRule, OpCall, handles
from secateur.graph.types import Dims, fresh, fresh_all, pin

PACKED = "a packed sequence lists its steps"


@handles("_pack_padded_sequence")
def pack(call: OpCall) -> list[Dims | None]:
    x = call.dims("input")
    data, sizes = call.out
    for product in (*x[:2], *call.dims("lengths")):
        pin(product, PACKED)
    return [(fresh(data.shape[0], PACKED), *x[2:]), fresh_all(sizes.shape, PACKED)]


@handles("_pad_packed_sequence")
def pad(call: OpCall) -> list[Dims | None]:
    if call.get("padding_value", 0) != 0:
        raise NoRule("padding that is not zero")
    x = call.dims("data")
    padded, lengths = call.out
    for product in (x[0], *call.dims("batch_sizes")):
        pin(product, PACKED)
    return [(*fresh_all(padded.shape[:2], PACKED), *x[1:]), fresh_all(lengths.shape, PACKED)]
