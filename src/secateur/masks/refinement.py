"""Where counts that many ranks share reach what is wanted, with a few hundred numbers a round.

Every rank knows how many of its own things lie at or below an index; nobody knows the sum. Each
round asks for the sums at some indices between the last two that enclose the answer, for all
questions at once, and so narrows every one of them down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from secateur.core.world import World

A_ROUND = 256
"""Counts that are sent in one round, two kilobytes at most; one for each question at least."""


@dataclass(frozen=True, slots=True)
class Question:
    """The smallest index below `end` at which the sum of `at_most` over the ranks is `wanted`.

    at_most: of an index, how many of this rank's things lie there or before. total: of all ranks
    at the last index, no less than `wanted`.
    """

    at_most: Callable[[int], int]
    end: int
    wanted: int
    total: int


@dataclass(frozen=True, slots=True)
class Reached:
    """index: the answer. below, upto: the sum at the index before it, and at the index itself."""

    index: int
    below: int
    upto: int


def reached(questions: Sequence[Question], *, world: World, what: str) -> list[Reached]:
    """The answers, the same on every rank.

    >>> from secateur.core.world import ALONE
    >>> reached([Question(lambda k: (k + 1) ** 2, 9, 10, 81)], world=ALONE, what="squares")
    [Reached(index=3, below=9, upto=16)]
    """
    dtype = torch.int32 if all(q.total < 2**31 for q in questions) else torch.int64
    first, last = [0] * len(questions), [q.end - 1 for q in questions]
    below, upto = [0] * len(questions), [q.total for q in questions]
    while open_ := [k for k in range(len(questions)) if first[k] < last[k]]:
        each = max(1, A_ROUND // len(open_))
        asked = [_between(first[k], last[k], each) for k in open_]
        own = [questions[k].at_most(i) for k, some in zip(open_, asked, strict=True) for i in some]
        sums = torch.tensor(own, dtype=dtype)
        world.sum_([sums], what=what)
        counts = iter(sums.tolist())
        for k, some in zip(open_, asked, strict=True):
            pairs = [(index, next(counts)) for index in some]
            for index, count in pairs:  # they rise
                if count >= questions[k].wanted:
                    last[k], upto[k] = index, count
                    break
                first[k], below[k] = index + 1, count
    return [Reached(*found) for found in zip(first, below, upto, strict=True)]


def _between(first: int, last: int, count: int) -> list[int]:
    """So many indices that cut first..last-1 into equal parts, or all there are."""
    width = last - first
    if count >= width:
        return list(range(first, last))
    return [first + (j + 1) * width // (count + 1) for j in range(count)]
