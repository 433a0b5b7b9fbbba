"""What a model is to whoever sends and stores it: tensors in the units that are moved at once.

A unit is what FSDP2 gathers, computes and scatters together: a block of the model, and one last
unit for whatever lies outside the blocks. Sizes are those of one rank's batch, before anything is
shared along the mesh; what tensor parallelism splits is told apart from what it repeats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FLOAT = 4
"""Bytes of an element of float32, which weights are in."""


@dataclass(frozen=True, slots=True)
class Weight:
    """`count` parameters of `rows` (dim 0) by `columns` (all other dims); `split`: which of the two
    tensor parallelism shares, None for what each of its ranks repeats."""

    rows: int
    columns: int = 1
    count: int = 1
    split: Literal["rows", "columns"] | None = None
    trainable: bool = True

    @property
    def elements(self) -> int:
        """Of all of them.

        >>> Weight(3, 4, count=2).elements
        24
        """
        return self.count * self.rows * self.columns

    def on_rank(self, tp: int) -> Weight:
        """What one of `tp` ranks has; the first has the most where they don't divide.

        >>> Weight(10, 4, split="rows").on_rank(4).rows
        3
        """
        rows = math.ceil(self.rows / tp) if self.split == "rows" else self.rows
        columns = math.ceil(self.columns / tp) if self.split == "columns" else self.columns
        return Weight(rows, columns, self.count, None, self.trainable)

    def rows_of(self, rank: int, ranks: int) -> int:
        """How many rows one of `ranks` gets: equal chunks, the last ones shorter or empty.

        >>> [Weight(10).rows_of(rank, 4) for rank in range(4)]
        [3, 3, 3, 1]
        """
        chunk = math.ceil(self.rows / ranks)
        return max(0, min(chunk, self.rows - rank * chunk))

    def padded_part(self, ranks: int) -> int:
        """Elements that a rank of `ranks` sends of it: shorter chunks are filled up.

        >>> Weight(10, 2).padded_part(4)
        6
        """
        return self.count * math.ceil(self.rows / ranks) * self.columns


@dataclass(frozen=True, slots=True)
class Unit:
    """macs: of the forward; kept_elements: of activations that the backward needs; kept_bytes: of
    those whose type autocast does not change. `tp_*`: the share of each that tensor parallelism
    splits. forward_reduced, backward_reduced: elements of each activation, and of each gradient,
    that its ranks add up. entry_elements: of the unit's input. batch_norms: channels of each."""

    name: str
    weights: tuple[Weight, ...]
    macs: int = 0
    tp_macs: int = 0
    kept_elements: int = 0
    tp_kept_elements: int = 0
    kept_bytes: int = 0
    tp_kept_bytes: int = 0
    forward_reduced: tuple[int, ...] = ()
    backward_reduced: tuple[int, ...] = ()
    entry_elements: int = 0
    batch_norms: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Of its parameters."""
        return sum(weight.elements for weight in self.weights)


@dataclass(frozen=True, slots=True)
class Workload:
    """units: in the order of the forward, repeated ones once with how often; the last is what lies
    outside all others. buffers: bytes of them. samples: what the batch of one rank counts, in
    `sample` (images, tokens)."""

    name: str
    units: tuple[tuple[Unit, int], ...]
    buffers: int = 0
    samples: int = 1
    sample: str = "samples"

    @property
    def elements(self) -> int:
        """Parameters."""
        return sum(unit.elements * count for unit, count in self.units)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward of one rank's batch."""
        return sum(unit.macs * count for unit, count in self.units)

    def weights(self) -> Iterator[tuple[Weight, int]]:
        """Every parameter, with how often there are such."""
        for unit, count in self.units:
            for weight in unit.weights:
                yield weight, count
