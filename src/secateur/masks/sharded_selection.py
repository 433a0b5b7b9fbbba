"""Which scores are the smallest over all ranks of a world, without any rank seeing another's.

Each rank counts its own keys in a histogram and tells sums of it; the bin in which the wanted rank
lies is split by the next histogram, until a bin is one key. Of the scores with that very key those
of the earlier tensor go first, in a tensor those of the smaller flat index: where among the flat
indices the last one lies is asked for in the same way. The answer is that of one stable sort over
everything, as `selection` gives it in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.core.world import World
from secateur.masks.keys import INFINITY
from secateur.masks.refinement import Question, Reached, reached
from secateur.masks.shard_source import Cut, Pool, check_sound
from secateur.masks.sharded_ties import Window, ties_shared_out

_COUNTERS = 1 << 19
"""Of all histograms together: four megabytes."""
_BITS = (8, 16)
"""Of a histogram's index."""


def smallest_of(pools: Sequence[Pool], world: World) -> list[list[Cut]]:
    """For each pool what goes of each source, so that its `count` smallest go.

    Raises: ScoreError for NaN and infinite scores, on every rank.
    """
    check_sound([source for pool in pools for source in pool.sources], world)
    busy = [pool for pool in pools if pool.count]
    windows = iter(ties_shared_out(busy, _located(busy, world), world))
    return [
        next(windows) if pool.count else [Cut(source.lowest, 0) for source in pool.sources]
        for pool in pools
    ]


def _located(pools: Sequence[Pool], world: World) -> list[Window]:
    """The key of rank `count` of each pool, as a window of this key alone."""
    windows = [_all_keys(pool) for pool in pools]
    bits = min(max((_COUNTERS // max(len(pools), 1)).bit_length() - 1, _BITS[0]), _BITS[1])
    while wide := [k for k, window in enumerate(windows) if window.low < window.high]:
        shifts = [max((windows[k].high - windows[k].low).bit_length() - bits, 0) for k in wide]
        asked = []
        for k, shift in zip(wide, shifts, strict=True):
            window = windows[k]
            sums = np.cumsum(_histogram(pools[k], window, shift))
            wanted, total = pools[k].count - window.below, window.upto - window.below
            asked.append(Question(sums.item, len(sums), wanted, total))
        answers = reached(asked, world=world, what="where the threshold lies")
        for k, shift, answer in zip(wide, shifts, answers, strict=True):
            windows[k] = _narrowed(windows[k], shift, answer)
    return windows


def _all_keys(pool: Pool) -> Window:
    source = pool.sources[0]
    total = sum(one.shard.weights for one in pool.sources)
    return Window(source.lowest, INFINITY[source.dtype] - 1, 0, total)


def _narrowed(window: Window, shift: int, answer: Reached) -> Window:
    low = window.low + (answer.index << shift)
    high = min(window.high, low + (1 << shift) - 1)
    return Window(low, high, window.below + answer.below, window.below + answer.upto)


def _histogram(pool: Pool, window: Window, shift: int) -> NDArray[np.int64]:
    """How many of this rank's keys lie in each part of 2^shift keys of a window."""
    width = window.high - window.low
    counts = np.zeros((width >> shift) + 1, dtype=np.int64)
    for source in pool.sources:
        if not source.counted:
            continue
        for _, keys in source.chunks():
            # from low to high is one comparison of unsigned integers: key - low <= high - low
            unsigned = np.dtype(f"u{keys.itemsize}").type
            from_low = keys.view(unsigned) - unsigned(window.low % (1 << 8 * keys.itemsize))
            inside = from_low[from_low <= unsigned(width)] >> unsigned(shift)
            counts += np.bincount(inside.astype(np.intp), minlength=len(counts))
    return counts
