"""What convolutions take to work in on a CPU, beside their inputs and outputs.

oneDNN computes in its own layout: input, weights and output are copied with their channels filled
up to whole vector registers, and the output is copied back; of a pointwise convolution with a
stride each thread gathers the pixels that count. Where torch does not ask oneDNN, the windows are
laid out as columns. All are the rules of torch's own convolutions on x86.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from secateur.core.dims import Dim, dim_size
from secateur.core.graph import Graph, Value
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
    """One convolution, by sizes that no cut changes: its place among the operators, bytes an
    element, images, pixels, elements of a window, whether channels lie next to each other, whether
    there is one group, whether it reads an image as it is. Then slots of its channels: the weight's
    second dimension has `width` of the `whole` input, or of the output where it is transposed."""

    step: int
    itemsize: int
    batch: int
    pixels_in: int
    pixels_out: int
    window: int
    channels_last: bool
    single: bool
    image: bool
    channels_in: int
    channels_out: int
    whole: int
    width: int


class ConvolutionMemory:
    """Bytes that each convolution works in, compiled for repeated evaluation.

    steps: the convolutions' places among the graph's operators. threads: a single one takes
    pointwise convolutions another way; several where None.
    """

    def __init__(self, graph: Graph, table: SizeTable, *, threads: int | None = None) -> None:
        found = np.array(list(_convolutions(graph, table)), np.int64).reshape(-1, 13).T
        self.steps, itemsize, batch, pixels_in, pixels_out, window = found[:6]
        last, single, image = found[6:9] == 1
        self._slots = found[9:]
        self._dense, self._grouped = single & ~image, bool((~single).any())
        strided = pixels_in != pixels_out
        still = (window == 1) & ~strided
        gathered = np.where((window == 1) & strided, (threads or 1) * pixels_out, 0)
        self._read = np.where(image | last, 0, batch * pixels_in + gathered) * itemsize
        self._made = np.where(last, 0, batch * pixels_out) * itemsize
        self._weight = window * itemsize
        self._column = np.where(still | last, 0, batch * window * pixels_out) * itemsize
        hard = ~still | (batch >= BIG_BATCH) | (threads != 1)
        self._asked = hard & (itemsize < 8)
        self._large = ~single | (batch > 1)
        self._few = FEW_ELEMENTS // np.maximum(batch * pixels_in, 1)
        self._always = bool((self._asked & self._large).all())

    def bytes(self, values: Int64Array) -> Int64Array:
        """By convolution, what it takes at its worst moment beside its input and its output."""
        channels = values[self._slots]
        c_in, c_out = channels[:2]
        rows, filled = c_in, -(-channels[:2] // LANES) * LANES
        wide_in, wide_out = filled
        if self._grouped:
            # prices are asked for widths of nothing too
            groups = np.maximum(channels[2] // np.maximum(channels[3], 1), 1)
            rows, per_out = c_in // groups, c_out // groups
            whole = (rows % LANES == 0) & (per_out % LANES == 0)
            laid = (groups == 1) | whole | ((rows == 1) & (per_out == 1))
            wide_in, wide_out = wide_in * laid, np.where(laid, wide_out, c_out)
            rows = rows * laid
        rows = np.where(self._dense, wide_in, rows)
        made = wide_out * self._made
        work = wide_in * self._read + wide_out * rows * self._weight + made - c_out * self._made
        taken: Int64Array = np.maximum(work, made)
        if self._always:
            return taken
        onednn = self._asked & (self._large | (c_in > self._few))
        return np.where(onednn, taken, c_in * self._column)


def _convolutions(graph: Graph, table: SizeTable) -> Iterator[_Convolution]:
    channels_last = _channels_last(graph)
    for step, op in enumerate(graph.ops):
        if op.name == "convolution" and len(op.inputs) > 1 and len(op.inputs[0].dims) > 2:
            read, weight, made = op.inputs[0].dims, op.inputs[1].dims, op.outputs[0].dims
            whole = read[1] if weight[0] == made[1] else made[1]  # else it is transposed
            yield _Convolution(
                step,
                itemsize=op.outputs[0].itemsize,
                batch=dim_size(read[0]),
                pixels_in=_elements(read[2:]),
                pixels_out=_elements(made[2:]),
                window=_elements(weight[2:]),
                channels_last=op.inputs[0].storage in channels_last,
                single=whole == weight[1],
                image=whole == weight[1] and dim_size(read[1]) <= IMAGE_CHANNELS,
                channels_in=table.add(read[1]),
                channels_out=table.add(made[1]),
                whole=table.add(whole),
                width=table.add(weight[1]),
            )


def _elements(dims: Sequence[Dim]) -> int:
    return math.prod(map(dim_size, dims))


def _channels_last(graph: Graph) -> set[int]:
    """Storages whose channels lie next to each other, so that oneDNN need not copy them.

    A convolution of tokens reads a view of [batch x pixels, channels]; what it makes, and what
    operators make of that in the same shape, lies the same way.
    """
    first: dict[int, Value] = {}
    found: set[int] = set()
    for op in graph.ops:
        for value in (*op.inputs, *op.outputs):
            first.setdefault(value.storage, value)
        if op.name == "convolution":
            seen = op.inputs[0]
            dims = first[seen.storage].dims
            if dims[-1:] == seen.dims[1:2] and dims[:2] != seen.dims[:2]:
                found.add(seen.storage)
        like = {value.dims for value in op.inputs if value.storage in found}
        convolved = op.name == "convolution" and op.inputs[0].storage in found
        found.update(v.storage for v in op.outputs if convolved or v.dims in like)
    return found
