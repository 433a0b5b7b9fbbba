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
from secateur.core.dims import Counts
from secateur.core.graph import Graph
from secateur.cost.activation_memory import ActivationMemory
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


class CostModel:
    """The cost of one graph, compiled for repeated evaluation.

    threads: how many the model will run on; a single one takes less memory. Several where None.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        table = self._table = SizeTable()
        tensors = [(table.add_product(t.dims), t) for t in graph.tensors.values()]
        self._params = _terms((slot, 1) for slot, t in tensors if t.is_parameter)
        self._bytes = _terms((slot, t.itemsize) for slot, t in tensors)
        self._macs = _terms((table.add_product(term), 1) for op in graph.ops for term in op.macs)
        self._activations = ActivationMemory(graph, table, threads=threads)

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
            peak_memory_bytes=size_bytes + self._activations.peak(values),
        )


def _terms(terms: Iterable[tuple[int, int]]) -> _Terms:
    """A sum of slots and their weights; equal products are evaluated once."""
    weights: dict[int, int] = {}
    for slot, weight in terms:
        weights[slot] = weights.get(slot, 0) + weight
    return _Terms(
        np.array(list(weights.keys()), dtype=np.int64),
        np.array(list(weights.values()), dtype=np.int64),
    )
