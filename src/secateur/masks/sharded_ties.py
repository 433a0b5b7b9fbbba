"""The last score that goes, when it is one of a few, or one of many that are equal.

Scores are in order of their keys, equal ones in order of their positions: those of the earlier
tensor first, in a tensor by flat index, so that the positions of all tensors of a pool are one
line. Where many are equal, positions are searched for as keys are; few are told one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secateur.core.world import World
from secateur.masks.keys import CHUNK
from secateur.masks.refinement import Question, brackets
from secateur.masks.shard_source import Cut, Pool, ShardSource

Place = tuple[int, int]
"""A key and a position."""


@dataclass(frozen=True, slots=True)
class Region:
    """The keys from low to high at positions from first to last: the last score of a pool that
    goes is one of these. below: how many scores come before all of them, in order; upto: with
    them."""

    low: int
    high: int
    first: int
    last: int
    below: int
    upto: int

    @property
    def things(self) -> int:
        """How many scores there are."""
        return self.upto - self.below


def narrowed_by_position(
    pools: Sequence[Pool], regions: Sequence[Region], world: World
) -> list[Region]:
    """The regions, those of one key and of many scores with fewer positions."""
    found = list(regions)
    tied = [k for k, region in enumerate(found) if _is_tied(pools[k], region)]
    lines = [_Line.of(pools[k], found[k].low) for k in tied]
    asked = [
        Question(line.upto, found[k].last + 1, pools[k].count - found[k].below, found[k].things)
        for k, line in zip(tied, lines, strict=True)
    ]
    answers = brackets(asked, world=world, what="which of equal scores go")
    for k, answer in zip(tied, answers, strict=True):
        below, upto = (found[k].below + count for count in (answer.below, answer.upto))
        found[k] = replace(found[k], first=answer.first, last=answer.last, below=below, upto=upto)
    return found


def told(pools: Sequence[Pool], regions: Sequence[Region], world: World) -> list[Place]:
    """Key and position of the last score of each pool that goes."""
    unknown = [k for k, region in enumerate(regions) if pools[k].count < region.upto]
    own = [list(_places(pools[k], regions[k])) for k in unknown]
    everywhere: list[list[str]] = [[] for _ in unknown]
    if unknown:
        words = [_written(some, regions[k]) for k, some in zip(unknown, own, strict=True)]
        text = world.gather(";".join(words), what="the last scores that go")
        everywhere = [list(words) for words in zip(*(t.split(";") for t in text), strict=True)]
    last = [(region.high, region.last) for region in regions]
    for k, found in zip(unknown, everywhere, strict=True):
        places = sorted(place for word in found for place in _read(word, regions[k]))
        last[k] = places[pools[k].count - regions[k].below - 1]
    return last


def cut_at(pool: Pool, key: int, position: int) -> list[Cut]:
    """What goes of each source of a pool, of which the last that goes has this key and place."""
    cuts, start = [], 0
    for source in pool.sources:
        cuts.append(Cut(key, source.shard.before(max(position + 1 - start, 0))))
        start += source.shard.weights
    return cuts


def _is_tied(pool: Pool, region: Region) -> bool:
    return region.low == region.high and pool.count < region.upto


@dataclass(frozen=True)
class _Line:
    """Where this rank's scores with one key lie on the line of a pool's positions.

    sums: for each source, how many lie in the chunks before each of its chunks.
    """

    pool: Pool
    key: int
    sums: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, pool: Pool, key: int) -> _Line:
        return cls(pool, key, tuple(_sums_of_equal(source, key) for source in pool.sources))

    def upto(self, position: int) -> int:
        """How many lie there or before."""
        found, start = 0, 0
        for source, sums in zip(self.pool.sources, self.sums, strict=True):
            if start > position:
                break
            if position >= start + source.shard.weights:
                found += int(sums[-1])
            elif source.counted:
                found += self._inside(source, sums, position + 1 - start)
            start += source.shard.weights
        return found

    def _inside(self, source: ShardSource, sums: NDArray[np.int64], stop: int) -> int:
        own = source.shard.before(stop)
        begin = own // CHUNK * CHUNK
        rest = sum(int((keys == self.key).sum()) for _, keys in source.chunks(begin, own))
        return int(sums[own // CHUNK]) + rest


def _sums_of_equal(source: ShardSource, key: int) -> NDArray[np.int64]:
    counts = [int(np.count_nonzero(keys == key)) for _, keys in source.chunks()]
    return np.cumsum([0, *(counts if source.counted else [0] * len(counts))])


def _places(pool: Pool, region: Region) -> Iterator[Place]:
    """This rank's scores in a region."""
    start = 0
    for source in pool.sources:
        stops = (max(position - start, 0) for position in (region.first, region.last + 1))
        left, right = (source.shard.before(stop) if source.counted else 0 for stop in stops)
        for begin, keys in source.chunks(left // CHUNK * CHUNK, right):
            inside = np.flatnonzero((keys >= region.low) & (keys <= region.high))
            for index in inside[inside >= left - begin].tolist():
                yield int(keys[index]), start + source.shard.position(begin + index)
        start += source.shard.weights


def _written(places: Sequence[Place], region: Region) -> str:
    """In few letters, for they are sent."""
    return ",".join(f"{key - region.low:x}.{place - region.first:x}" for key, place in places)


def _read(text: str, region: Region) -> Iterator[Place]:
    for word in text.split(",") if text else ():
        key, place = (int(number, 16) for number in word.split("."))
        yield key + region.low, place + region.first
