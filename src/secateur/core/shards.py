"""Where the elements that a process holds stand in a tensor that several processes share.

A shard is a box of the whole tensor: some indices of each dimension, one after another. Rows,
columns, or both, uneven or empty: whatever a mesh makes of a parameter. Flat indices count in the
order of the dimensions, so those of a shard rise along its own elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.core.world import World


@dataclass(frozen=True, slots=True)
class Shard:
    """shape: of the whole tensor. start: the first index that lies here along each dimension.
    size: how many."""

    shape: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Shard:
        """All of a tensor."""
        return cls(shape, (0,) * len(shape), shape)

    @property
    def weights(self) -> int:
        """How many elements the whole tensor has."""
        return math.prod(self.shape)

    @property
    def own(self) -> int:
        """How many of them lie here."""
        return math.prod(self.size)

    def before(self, position: int) -> int:
        """How many of the elements that lie here have a flat index below `position`.

        >>> right = Shard((2, 4), (0, 2), (2, 2))  # flat indices 2, 3 and 6, 7
        >>> [right.before(position) for position in (0, 3, 6, 7, 8)]
        [0, 1, 2, 3, 4]
        """
        found, outer, inner = 0, self.weights, self.own
        if position >= outer:
            return inner
        for extent, start, size in zip(self.shape, self.start, self.size, strict=True):
            if not inner:
                return found
            outer, inner = outer // extent, inner // size
            index, position = divmod(position, outer)
            found += min(max(index - start, 0), size) * inner
            if not start <= index < start + size:
                return found
        return found

    def position(self, index: int) -> int:
        """The flat index of an element that lies here, by its place among those.

        >>> right = Shard((2, 4), (0, 2), (2, 2))
        >>> [right.position(index) for index in range(4)]
        [2, 3, 6, 7]
        """
        found, outer = 0, 1
        for extent, start, size in _from_last(self):
            index, own = divmod(index, size)
            found += (start + own) * outer
            outer *= extent
        return found


def _from_last(shard: Shard) -> list[tuple[int, int, int]]:
    return list(zip(shard.shape, shard.start, shard.size, strict=True))[::-1]


@dataclass(frozen=True, slots=True)
class Part:
    """What lies here of a parameter. tensor: its memory itself, not a copy. counted: false where
    another rank holds the same elements and counts them. copies: how many ranks hold them."""

    tensor: Tensor
    shard: Shard
    counted: bool = True
    copies: int = 1


@runtime_checkable
class ShardedWorld(World, Protocol):
    """A world whose ranks may each hold a part of every parameter."""

    def settle_(self, model: nn.Module) -> None:
        """Give back what was brought together for a forward, so that each rank has its shards."""

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Part]:
        """What lies here of each tensor. Every rank names the same tensors in the same order."""

    def local(self, tensor: Tensor) -> Tensor:
        """The memory of what lies here of one tensor; nobody is asked."""
