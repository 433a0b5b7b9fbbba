"""Sizes of many dimensions at once, for any unit counts.

A budget search asks for the cost of a graph hundreds of times. Each distinct axis, dimension and
concatenation gets one slot of an array; a dimension is a product of slots and a concatenation a
sum of slots, so a whole graph is a few vectorised products and sums, one pair for each depth of
nesting. Worked example: (A, Concat((B,), (C,))) is slots A B C, then B + C, then A * (B + C).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.core.dims import Axis, Concat, Counts, Dim, Factor

Int64Array = NDArray[np.int64]
ONE = 0
"""The slot that always holds 1."""


class SizeTable:
    """Slots for dimensions: `add` them all, then `evaluate` as often as wanted."""

    def __init__(self) -> None:
        self._axes: dict[int, int] = {}
        self._full: list[int] = [1]
        self._slots: dict[Dim, int] = {(): ONE}
        self._depths: dict[int, int] = {ONE: 0}
        self._concats: dict[Concat, int] = {}
        self._steps: dict[tuple[int, bool], list[tuple[int, list[int]]]] = {}
        self._compiled: list[tuple[bool, Int64Array, Int64Array, Int64Array]] | None = None

    def add(self, dim: Dim) -> int:
        """The slot of a dimension."""
        slot = self._slots.get(dim)
        if slot is None:
            parts = [self._factor(factor) for factor in dim]
            slot = parts[0] if len(parts) == 1 else self._combine(parts, product=True)
            self._slots[dim] = slot
        return slot

    def add_product(self, dims: Sequence[Dim]) -> int:
        """The slot of the product of dimensions: a tensor's number of elements."""
        return self.add(tuple(factor for dim in dims for factor in dim))

    def evaluate(self, counts: Counts) -> Int64Array:
        """The value of every slot when each axis keeps `counts` units."""
        if self._compiled is None:
            self._compiled = [_compile(key, rows) for key, rows in sorted(self._steps.items())]
        values = np.array(self._full, dtype=np.int64)
        for index, count in counts.items():
            if index in self._axes:
                values[self._axes[index]] = count
        for product, targets, sources, starts in self._compiled:
            reduce = np.multiply.reduceat if product else np.add.reduceat
            values[targets] = reduce(values[sources], starts)
        return values

    def _factor(self, factor: Factor) -> int:
        if isinstance(factor, Axis):
            if factor.index not in self._axes:
                self._axes[factor.index] = self._new(factor.size, depth=0)
            return self._axes[factor.index]
        if factor not in self._concats:
            parts = [self.add(part) for part in factor.parts]
            self._concats[factor] = self._combine(parts, product=False)
        return self._concats[factor]

    def _combine(self, parts: list[int], *, product: bool) -> int:
        depth = max(self._depths[part] for part in parts)
        if not product:
            depth += 1  # sums of a depth are computed before the products of that depth
        slot = self._new(1, depth=depth)
        self._steps.setdefault((depth, product), []).append((slot, parts))
        self._compiled = None
        return slot

    def _new(self, size: int, *, depth: int) -> int:
        self._full.append(size)
        slot = len(self._full) - 1
        self._depths[slot] = depth
        return slot


def _compile(
    key: tuple[int, bool], rows: list[tuple[int, list[int]]]
) -> tuple[bool, Int64Array, Int64Array, Int64Array]:
    targets = np.array([slot for slot, _ in rows], dtype=np.int64)
    sources = np.concatenate([np.array(parts, dtype=np.int64) for _, parts in rows])
    lengths = np.array([len(parts) for _, parts in rows], dtype=np.int64)
    return key[1], targets, sources, np.concatenate([[0], np.cumsum(lengths)[:-1]])
