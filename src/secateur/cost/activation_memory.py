"""Memory that activations take at once, for any unit counts.

A storage lives from the operator that makes it to the last that reads it, or longer: a module's
inputs stay until its call ends, for the caller holds them. Beside the storages stands what an
operator takes to work in. All of it is compiled once from the graph; the largest sum over the
operators is the peak.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from secateur.core.dims import Dim
from secateur.core.graph import Graph, Value
from secateur.cost.convolution_memory import ConvolutionMemory
from secateur.cost.sizes import Int64Array, SizeTable


@dataclass(frozen=True, slots=True)
class _Storage:
    """Memory made during the forward, alive from operator `born` to operator `dies`, both included.

    `slot` and `itemsize` are those of the value that was made first; views of it may be smaller,
    or larger without taking memory (expand).
    """

    born: int
    dies: int
    slot: int
    itemsize: int


class ActivationMemory:
    """The largest memory of a graph's activations, compiled for repeated evaluation."""

    def __init__(self, graph: Graph, table: SizeTable, *, threads: int | None = None) -> None:
        storages = list(_storages(graph, table))
        self._steps = len(graph.ops)
        self._slots = np.array([storage.slot for storage in storages], np.int64)
        self._itemsizes = np.array([storage.itemsize for storage in storages], np.int64)
        self._born = np.array([storage.born for storage in storages], np.int64)
        self._after = np.array([storage.dies + 1 for storage in storages], np.int64)
        self._convolutions = ConvolutionMemory(graph, table, threads=threads)
        inputs = list(_inputs(graph))
        self._input_slots = np.array([table.add_product(dims) for dims, _ in inputs], np.int64)
        self._input_itemsizes = np.array([itemsize for _, itemsize in inputs], np.int64)

    def peak(self, values: Int64Array) -> int:
        """Bytes of the inputs and of the most that is alive at one operator."""
        sizes = values[self._slots] * self._itemsizes
        change = np.zeros(self._steps + 1, dtype=np.int64)
        np.add.at(change, self._born, sizes)
        np.subtract.at(change, self._after, sizes)
        alive = np.cumsum(change)
        alive[self._convolutions.steps] += self._convolutions.bytes(values)
        return int(alive.max() + values[self._input_slots] @ self._input_itemsizes)


def _storages(graph: Graph, table: SizeTable) -> Iterator[_Storage]:
    """Storages that an operator makes; weights and inputs are first seen as an operator's input."""
    external: set[int] = set()
    first: dict[int, tuple[int, Value]] = {}
    dies: dict[int, int] = {}
    for step, op in enumerate(graph.ops):
        external.update(value.storage for value in op.inputs if value.storage not in first)
        for value in (*op.inputs, *op.outputs):
            if value.storage not in external:
                first.setdefault(value.storage, (step, value))
                dies[value.storage] = step
    for storage, step in _held(graph):
        if storage in dies:
            dies[storage] = max(dies[storage], step)
    for storage, (born, value) in first.items():
        yield _Storage(born, dies[storage], table.add_product(value.dims), value.itemsize)


def _held(graph: Graph) -> Iterator[tuple[int, int]]:
    """Storages that the caller of a module holds, and the last operator of the call."""
    parents = {call.module for call in graph.calls if call.span != (0, 0)}
    for call in graph.calls:
        for value in call.inputs:
            yield value.storage, call.span[1] - 1
    for module, own in groupby(enumerate(graph.ops), key=lambda item: item[1].module):
        run = list(own)
        if module not in parents:  # a layer without children: what it reads first was given to it
            made = {value.storage for _, op in run for value in op.outputs}
            for storage in {v.storage for _, op in run for v in op.inputs} - made:
                yield storage, run[-1][0]
    yield from _named(graph, parents)
    for storage in graph.output_storages:
        yield storage, len(graph.ops) - 1


def _named(graph: Graph, parents: Collection[str]) -> Iterator[tuple[int, int]]:
    """What joins in the forward of a module with children has local names, mostly, and stays while
    the next layer runs: ``self.norm(changed + x)``."""
    made = {value.storage for op in graph.ops for value in op.outputs}
    steps = enumerate(graph.ops)
    runs = [(module, list(own)) for module, own in groupby(steps, key=lambda item: item[1].module)]
    for (module, own), (layer, following) in pairwise(runs):
        if module in parents and layer not in parents:
            joined = {value.storage for value in own[-1][1].inputs} & made
            for storage in joined if len(joined) > 1 else ():
                yield storage, following[-1][0]


def _inputs(graph: Graph) -> Iterator[tuple[tuple[Dim, ...], int]]:
    """Each model input with its bytes per element, found where an operator reads it."""
    wanted = set(graph.inputs)
    itemsizes: dict[tuple[Dim, ...], int] = {}
    for value in (value for op in graph.ops for value in op.inputs):
        if value.dims in wanted:
            itemsizes[value.dims] = value.itemsize
            wanted.remove(value.dims)
            if not wanted:
                break
    for dims in graph.inputs:
        if dims in itemsizes:
            yield dims, itemsizes[dims]
