"""Which scores are the smallest over all ranks of a world, without any rank seeing another's.

Each rank counts its own keys in a histogram and tells sums of it; the bins in which the wanted rank
lies are split by the next histogram, until they hold a few scores, which are told one by one, or
one key. Of the scores with one key those of the earlier tensor go first, in a tensor those of the
smaller flat index (`sharded_ties`). The answer is that of one stable sort over everything, as
`selection` gives it in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.core.world import World
from secateur.masks.keys import INFINITY
from secateur.masks.refinement import Bracket, Question, brackets, enough
from secateur.masks.shard_source import Cut, Pool, check_sound
from secateur.masks.sharded_ties import Region, cut_at, narrowed_by_position, told

_COUNTERS = 1 << 20
"""Of all histograms together: eight megabytes."""
_BITS = (8, 16)
"""Of a histogram's index."""
_MANY = 32
"""Thresholds from which on ranks first tell where each should be."""


def smallest_of(pools: Sequence[Pool], world: World) -> list[list[Cut]]:
    """For each pool what goes of each source, so that its `count` smallest go.

    Raises: ScoreError for NaN and infinite scores, on every rank.
    """
    check_sound([source for pool in pools for source in pool.sources], world)
    busy = [pool for pool in pools if pool.count]
    regions = narrowed_by_position(busy, _located(busy, world), world)
    last = iter(told(busy, regions, world))
    return [
        cut_at(pool, *next(last)) if pool.count else [Cut(s.lowest, 0) for s in pool.sources]
        for pool in pools
    ]


def _located(pools: Sequence[Pool], world: World) -> list[Region]:
    """Where the last score of each pool lies that goes: among few scores, or at one key."""
    regions = [_everything(pool) for pool in pools]
    bits = min(max((_COUNTERS // max(len(pools), 1)).bit_length() - 1, _BITS[0]), _BITS[1])
    own_below = [0] * len(pools)
    while sum(region.things for region in regions) > enough(len(pools)):
        wide = [k for k, region in enumerate(regions) if region.low < region.high]
        if not wide:
            break
        levels = [_Level.of(pools[k], regions[k], own_below[k], bits) for k in wide]
        guesses = _guesses(levels, world) if len(levels) > _MANY else [(None, 1.0)] * len(levels)
        asked = [level.question(*guess) for level, guess in zip(levels, guesses, strict=True)]
        answers = brackets(asked, world=world, what="where the threshold lies")
        for k, level, answer in zip(wide, levels, answers, strict=True):
            regions[k], own_below[k] = level.narrowed(answer)
    return regions


def _everything(pool: Pool) -> Region:
    source = pool.sources[0]
    total = sum(one.shard.weights for one in pool.sources)
    return Region(source.lowest, INFINITY[source.dtype] - 1, 0, total - 1, 0, total)


@dataclass(frozen=True)
class _Level:
    """A histogram of this rank's keys in a region. sums: of the counts up to each bin, which is
    2^shift keys wide. own_below: this rank's keys below the region."""

    pool: Pool
    region: Region
    own_below: int
    shift: int
    sums: NDArray[np.int64]

    @classmethod
    def of(cls, pool: Pool, region: Region, own_below: int, bits: int) -> _Level:
        shift = max((region.high - region.low).bit_length() - bits, 0)
        counts = _histogram(pool, region, shift)
        return cls(pool, region, own_below, shift, np.cumsum(counts, out=counts))

    def question(self, guess: float | None, width: float) -> Question:
        """In which bin the wanted rank lies."""
        region = self.region
        wanted = self.pool.count - region.below
        return Question(self.sums.item, len(self.sums), wanted, region.things, guess, width)

    def narrowed(self, found: Bracket) -> tuple[Region, int]:
        """The region of some bins, and how many of this rank's keys are below it."""
        region = self.region
        low = region.low + (found.first << self.shift)
        high = min(region.high, region.low + (found.last + 1 << self.shift) - 1)
        below, upto = region.below + found.below, region.below + found.upto
        before = int(self.sums[found.first - 1]) if found.first else 0
        return replace(region, low=low, high=high, below=below, upto=upto), self.own_below + before

    def expected(self) -> tuple[float, float]:
        """In which bin the same share of this rank's own keys ends, and how many are in a bin
        there."""
        own = sum(one.shard.own for one in self.pool.sources if one.counted)
        total = sum(one.shard.weights for one in self.pool.sources)
        last = len(self.sums) - 1
        wanted = self.pool.count / total * own - self.own_below
        place = min(int(np.searchsorted(self.sums, wanted)), last)
        reach = max(1, len(self.sums) // 64)
        left, right = max(place - reach, 0), min(place + reach, last)
        return place, int(self.sums[right] - self.sums[left]) / max(right - left, 1)


def _guesses(levels: Sequence[_Level], world: World) -> list[tuple[float | None, float]]:
    """In which bin each wanted rank should lie, and how far it may be off.

    Where each rank has ``n_i`` keys, and ``d_i`` of them in a bin near its own quantile ``q_i``,
    the quantile of all is ``sum d_i q_i / sum d_i`` to first order, off by the fourth root of all.
    """
    own = [level.expected() for level in levels]
    sums = torch.tensor([[place * dense, dense] for place, dense in own], dtype=torch.float32)
    world.sum_([sums], what="about where the thresholds lie")
    return [
        (places / dense, level.region.things**0.25 / dense) if dense else (None, 1.0)
        for level, (places, dense) in zip(levels, sums.tolist(), strict=True)
    ]


def _histogram(pool: Pool, region: Region, shift: int) -> NDArray[np.int64]:
    """How many of this rank's keys lie in each part of 2^shift keys of a region."""
    width = region.high - region.low
    counts = np.zeros((width >> shift) + 1, dtype=np.int64)
    for source in pool.sources:
        if not source.counted:
            continue
        for _, keys in source.chunks():
            # from low to high is one comparison of unsigned integers: key - low <= high - low
            unsigned = np.dtype(f"u{keys.itemsize}").type
            from_low = keys.view(unsigned) - unsigned(region.low % (1 << 8 * keys.itemsize))
            inside = from_low[from_low <= unsigned(width)] >> unsigned(shift)
            counts += np.bincount(inside.astype(np.intp), minlength=len(counts))
    return counts
