"""What convolutions take to work in on a CPU, beside their inputs and outputs.

oneDNN computes in its own layout: input, weights and output are copied with their channels filled
up to whole vector registers, and the output is copied back; of a pointwise convolution with a
stride each thread gathers the pixels that count. Where torch does not ask oneDNN, the windows are
laid out as columns. All are the rules of torch's own convolutions on x86.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from secateur.core.graph import Graph
from secateur.cost.sizes import Int64Array, SizeTable

LANES = 16
"""Numbers of float32 in a vector register of AVX-512; half as many in one of AVX2."""
FEW_ELEMENTS = 20_480
"""A single small image is convolved without oneDNN."""
IMAGE_CHANNELS = 3
"""An input of so few channels is read as it is."""
BIG_BATCH = 16
"""From here on oneDNN is asked for pointwise convolutions on one thread as well."""


class _Convolution(NamedTuple):
    """One convolution: its place among the operators, bytes per element, and slots. The weight's
    second dimension has `width` of the `whole` channels: the input's, or the output's where it is
    transposed."""

    step: int
    itemsize: int
    batch: int
    channels_in: int
    channels_out: int
    pixels_in: int
    pixels_out: int
    window: int
    whole: int
    width: int


class ConvolutionMemory:
    """Bytes that each convolution works in, compiled for repeated evaluation.

    steps: the convolutions' places among the graph's operators. threads: a single one takes
    pointwise convolutions another way; several where None.
    """

    def __init__(self, graph: Graph, table: SizeTable, *, threads: int | None = None) -> None:
        found = np.array(list(_convolutions(graph, table)), np.int64).reshape(-1, 10)
        self.steps, self._itemsizes = found[:, 0], found[:, 1]
        self._slots = found[:, 2:].T
        self._threaded = threads != 1
        self._threads = threads or 1

    def bytes(self, values: Int64Array) -> Int64Array:
        """By convolution, what it takes at its worst moment beside its input and its output."""
        batch, c_in, c_out, p_in, p_out, window, whole, width = values[self._slots]
        groups = whole // width
        per_in, per_out = c_in // groups, c_out // groups
        single = groups == 1
        point = window == 1
        still = point & (p_in == p_out)
        asked = ~still | (batch >= BIG_BATCH) | self._threaded
        large = ~single | (batch > 1) | (batch * c_in * p_in > FEW_ELEMENTS)
        onednn = asked & large & (self._itemsizes < 8)

        depthwise = (per_in == 1) & (per_out == 1)
        laid = single | depthwise | ((per_in % LANES == 0) & (per_out % LANES == 0))
        image = single & (c_in <= IMAGE_CHANNELS)
        wide_out = np.where(laid, _filled(c_out), c_out)
        source = np.where(laid & ~image, batch * _filled(c_in) * p_in, 0)
        rows = np.where(single & ~image, _filled(per_in), per_in)
        weights = np.where(laid, wide_out * rows * window, 0)
        gathered = np.where(laid & point & ~still, self._threads * _filled(c_in) * p_out, 0)
        made = batch * wide_out * p_out
        copied = np.maximum(gathered + source + weights + made - batch * c_out * p_out, made)

        columns = np.where(still, 0, batch * c_in * window * p_out)
        taken: Int64Array = np.where(onednn, copied, columns) * self._itemsizes
        return taken


def _filled(channels: Int64Array) -> Int64Array:
    """Channels of whole registers."""
    return -(-channels // LANES) * LANES


def _convolutions(graph: Graph, table: SizeTable) -> Iterator[_Convolution]:
    for step, op in enumerate(graph.ops):
        if op.name != "convolution" or len(op.inputs) < 2 or len(op.inputs[0].dims) < 3:
            continue
        image, weight, made = op.inputs[0].dims, op.inputs[1].dims, op.outputs[0].dims
        transposed = weight[0] != made[1]
        yield _Convolution(
            step,
            op.outputs[0].itemsize,
            batch=table.add(image[0]),
            channels_in=table.add(image[1]),
            channels_out=table.add(made[1]),
            pixels_in=table.add_product(image[2:]),
            pixels_out=table.add_product(made[2:]),
            window=table.add_product(weight[2:]),
            whole=table.add(made[1] if transposed else image[1]),
            width=table.add(weight[1]),
        )
