"""Of scores that are equal, which ones go: those of the earlier tensor, then of the smaller flat
index, counted over all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.core.world import World
from secateur.masks.keys import CHUNK
from secateur.masks.refinement import Question, reached
from secateur.masks.shard_source import Cut, Pool, ShardSource


@dataclass(frozen=True, slots=True)
class Window:
    """The keys from low to high, among which that of the wanted rank is. below, upto: how many of
    all are smaller than these, and how many are at most the largest of these."""

    low: int
    high: int
    below: int
    upto: int


def ties_shared_out(
    pools: Sequence[Pool], found: Sequence[Window], world: World
) -> list[list[Cut]]:
    """What goes of each source, when the key of each pool's threshold is known."""
    tied = [k for k, window in enumerate(found) if pools[k].count < window.upto]
    ties = [_Ties.of(pools[k], found[k]) for k in tied]
    ties = _tensor_of_last(ties, world)
    asked = [t.question() for t in ties]
    last = reached(asked, world=world, what="which of equal scores go")
    positions = {
        k: (t.number, answer.index + 1) for k, t, answer in zip(tied, ties, last, strict=True)
    }
    return [
        [
            Cut(window.low, _first(source, n, positions.get(k)))
            for n, source in enumerate(pool.sources)
        ]
        for k, (pool, window) in enumerate(zip(pools, found, strict=True))
    ]


def _first(source: ShardSource, number: int, last: tuple[int, int] | None) -> int:
    """How many of a source's first elements go where they have the key of the threshold."""
    if last is None or number < last[0]:
        return source.shard.own
    return source.shard.before(last[1]) if number == last[0] else 0


@dataclass(frozen=True)
class _Ties:
    """The scores of a pool that have the threshold's key, of which only the first `wanted` go.

    sums: for each source, how many lie in the chunks before each chunk here. number, total: of the
    source in which the last one lies, and how many it has on all ranks.
    """

    pool: Pool
    key: int
    wanted: int
    sums: tuple[NDArray[np.int64], ...]
    number: int = 0
    total: int = 0

    @classmethod
    def of(cls, pool: Pool, window: Window) -> _Ties:
        sums = tuple(_sums_of_equal(source, window.low) for source in pool.sources)
        equal = window.upto - window.below
        return cls(pool, window.low, pool.count - window.below, sums, total=equal)

    def question(self) -> Question:
        """At which flat index of the tensor the last one lies that goes."""
        source, sums = self.pool.sources[self.number], self.sums[self.number]

        def upto(position: int) -> int:
            own = source.shard.before(position + 1) if source.counted else 0
            start = own // CHUNK * CHUNK
            inner = sum(int((keys == self.key).sum()) for _, keys in source.chunks(start, own))
            return int(sums[own // CHUNK]) + inner

        return Question(upto, source.shard.weights, self.wanted, self.total)


def _sums_of_equal(source: ShardSource, key: int) -> NDArray[np.int64]:
    counts = [int(np.count_nonzero(keys == key)) for _, keys in source.chunks()]
    return np.cumsum([0, *(counts if source.counted else [0] * len(counts))])


def _tensor_of_last(ties: Sequence[_Ties], world: World) -> list[_Ties]:
    """Each with the tensor in which the last one lies that goes."""
    several = [t for t in ties if len(t.pool.sources) > 1]
    own = [int(sums[-1]) for t in several for sums in t.sums]
    if not own:
        return list(ties)
    counts = torch.tensor(own, dtype=torch.int64)
    world.sum_([counts], what="how many scores of each tensor are equal")
    numbers = iter(counts.tolist())
    return [_at_tensor(t, [next(numbers) for _ in t.sums]) if len(t.sums) > 1 else t for t in ties]


def _at_tensor(ties: _Ties, counts: Sequence[int]) -> _Ties:
    wanted = ties.wanted
    for number, count in enumerate(counts):
        if wanted <= count:
            return replace(ties, number=number, wanted=wanted, total=count)
        wanted -= count
    raise AssertionError("fewer equal scores than were counted")
