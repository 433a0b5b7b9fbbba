"""What sharing out an axis divides: the parameters and multiply-accumulates that have it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Set

from secateur.core.dims import Dim, axes_of, dim_size
from secateur.core.graph import Graph


class Weighed:
    """Elements of parameters, and products of one forward, by the axes that they run over."""

    def __init__(self, graph: Graph) -> None:
        self._parameters: Counter[frozenset[int]] = Counter()
        self._macs: Counter[frozenset[int]] = Counter()
        for tensor in graph.tensors.values():
            if tensor.is_parameter:
                self._parameters[_axes(tensor.dims)] += math.prod(map(dim_size, tensor.dims))
        for op in graph.ops:
            for term in op.macs:
                self._macs[_axes(term)] += math.prod(map(dim_size, term))

    def shares(self, axes: Set[int]) -> tuple[float, float]:
        """The share of all parameters, and of all multiply-accumulates, that has one of the
        axes."""
        return _share(self._parameters, axes), _share(self._macs, axes)

    def of(self, axes: Set[int]) -> float:
        """How much is won by sharing out these axes."""
        return sum(self.shares(axes))


def _axes(dims: tuple[Dim, ...]) -> frozenset[int]:
    return frozenset(axis.index for dim in dims for axis in axes_of(dim))


def _share(table: Counter[frozenset[int]], axes: Set[int]) -> float:
    total = sum(table.values())
    return sum(n for key, n in table.items() if key & axes) / total if total else 0.0
