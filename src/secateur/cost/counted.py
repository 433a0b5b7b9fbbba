"""Exact cost of a graph for any unit counts, without making the model.

Parameters, multiply-accumulates and bytes are sums of products of sizes, peak memory follows from
when each storage is born and last used. All of it is compiled once, so that a budget search can
ask hundreds of times. What is predicted here is what counting the cut model gives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from secateur.core.cost import Cost
from secateur.core.dims import Counts, Dim
from secateur.core.graph import Graph, Value
from secateur.cost.sizes import Int64Array, SizeTable


def cost(graph: Graph, counts: Counts | None = None) -> Cost:
    """Cost of the traced model when each axis keeps `counts` units; None keeps all."""
    return CostModel(graph).cost(counts or {})


@dataclass(frozen=True, slots=True)
class _Terms:
    """A weighted sum of slots."""

    slots: Int64Array
    weights: Int64Array

    def total(self, values: Int64Array) -> int:
        return int(values[self.slots] @ self.weights)


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


class CostModel:
    """The cost of one graph, compiled for repeated evaluation."""

    def __init__(self, graph: Graph) -> None:
        table = self._table = SizeTable()
        tensors = [(table.add_product(t.dims), t) for t in graph.tensors.values()]
        self._params = _terms((slot, 1) for slot, t in tensors if t.is_parameter)
        self._bytes = _terms((slot, t.itemsize) for slot, t in tensors)
        self._macs = _terms((table.add_product(term), 1) for op in graph.ops for term in op.macs)
        self._inputs = _terms((table.add_product(dims), size) for dims, size in _inputs(graph))
        self._steps = len(graph.ops)
        storages = _storages(graph, table)
        self._slots = np.array([storage.slot for storage in storages], np.int64)
        self._itemsizes = np.array([storage.itemsize for storage in storages], np.int64)
        self._born = np.array([storage.born for storage in storages], np.int64)
        self._after = np.array([storage.dies + 1 for storage in storages], np.int64)

    def params(self, counts: Counts) -> int:
        """Number of parameters, tied ones once."""
        return self._params.total(self._table.evaluate(counts))

    def macs(self, counts: Counts) -> int:
        """Multiply-accumulates of one forward at the traced inputs."""
        return self._macs.total(self._table.evaluate(counts))

    def cost(self, counts: Counts) -> Cost:
        """All counted figures."""
        values = self._table.evaluate(counts)
        size_bytes = self._bytes.total(values)
        return Cost(
            params=self._params.total(values),
            macs=self._macs.total(values),
            size_bytes=size_bytes,
            peak_memory_bytes=size_bytes + self._inputs.total(values) + self._peak(values),
        )

    def _peak(self, values: Int64Array) -> int:
        """Largest sum of the storages alive at one operator."""
        sizes = values[self._slots] * self._itemsizes
        change = np.zeros(self._steps + 1, dtype=np.int64)
        np.add.at(change, self._born, sizes)
        np.subtract.at(change, self._after, sizes)
        return int(np.cumsum(change).max())


def _terms(terms: Iterable[tuple[int, int]]) -> _Terms:
    """A sum of slots and their weights; equal products are evaluated once."""
    weights: dict[int, int] = {}
    for slot, weight in terms:
        weights[slot] = weights.get(slot, 0) + weight
    return _Terms(
        np.array(list(weights.keys()), dtype=np.int64),
        np.array(list(weights.values()), dtype=np.int64),
    )


def _storages(graph: Graph, table: SizeTable) -> list[_Storage]:
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
    return [
        _Storage(born, dies[storage], table.add_product(value.dims), value.itemsize)
        for storage, (born, value) in first.items()
    ]


def _inputs(graph: Graph) -> list[tuple[tuple[Dim, ...], int]]:
    """Each model input with its bytes per element, found where an operator reads it."""
    itemsizes: dict[tuple[Dim, ...], int] = {}
    wanted = set(graph.inputs)
    for value in (value for op in graph.ops for value in op.inputs):
        if value.dims in wanted:
            itemsizes[value.dims] = value.itemsize
            wanted.remove(value.dims)
            if not wanted:
                break
    return [(dims, itemsizes[dims]) for dims in graph.inputs if dims in itemsizes]
