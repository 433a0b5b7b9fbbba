"""Where counts that many ranks share reach what is wanted, with a few hundred numbers a round.

Every rank knows how many of its own things lie at or below an index; nobody knows the sum. Each
round asks for the sums at some indices between the last two that enclose the answer, for all
questions at once. They are asked for where the answer should be if things lie evenly in between,
and further away after every miss. It ends when the few things that are left can be told one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from secateur.core.world import World

A_ROUND = 255
"""Counts that are sent in one round, or three for each question: less than the messages of an
all-reduce themselves weigh."""
FEW = 256
"""Things that are told one by one rather than in more rounds, or four for each question."""
_CLOSE, _FURTHER = 2.0, 8.0
"""How many deviations off the expected place the outermost counts are asked for, and by how much
more after a miss."""


@dataclass(frozen=True)
class Question:
    """Among the indices below `end`: where the sum of `at_most` over the ranks reaches `wanted`.

    at_most: of an index, how many of this rank's things lie there or before. total: of all ranks
    at the last index, no less than `wanted`. guess, width: where it may be, and how far off.
    """

    at_most: Callable[[int], int]
    end: int
    wanted: int
    total: int
    guess: float | None = None
    width: float = 1.0


@dataclass(slots=True)
class Bracket:
    """The answer lies from first to last. below, upto: the sum before first, and at last."""

    first: int
    last: int
    below: int
    upto: int
    miss: float = _CLOSE

    @property
    def things(self) -> int:
        """How many lie there."""
        return self.upto - self.below


def brackets(questions: Sequence[Question], *, world: World, what: str) -> list[Bracket]:
    """Where the answers lie: at one index each, unless few things are left in all of them.

    >>> from secateur.core.world import ALONE
    >>> squares = Question(lambda k: (k + 1) ** 2, 99, 450, 9801)
    >>> (found,) = brackets([squares], world=ALONE, what="squares")
    >>> found.things <= FEW and found.below < 450 <= found.upto
    True
    """
    dtype = torch.int32 if all(q.total < 2**31 for q in questions) else torch.int64
    found = [Bracket(0, q.end - 1, 0, q.total) for q in questions]
    rounds = 0
    while sum(one.things for one in found) > enough(len(questions)):
        open_ = [k for k, one in enumerate(found) if one.first < one.last]
        if not open_:
            break
        each = max(3, A_ROUND // len(open_))
        asked = [_points(found[k], questions[k], each, first=not rounds) for k in open_]
        own = [questions[k].at_most(i) for k, some in zip(open_, asked, strict=True) for i in some]
        sums = torch.tensor(own, dtype=dtype)
        world.sum_([sums], what=what)
        counts = iter(sums.tolist())
        for k, some in zip(open_, asked, strict=True):
            _narrow_(found[k], questions[k].wanted, [(i, next(counts)) for i in some])
        rounds += 1
    return found


def enough(questions: int) -> int:
    """How many things may be left."""
    return max(FEW, 4 * questions)


def _points(one: Bracket, question: Question, count: int, *, first: bool) -> list[int]:
    """Where to ask within a bracket: evenly around the expected place, and at its first index, for
    many things may be equal."""
    width = one.last - one.first
    if count >= width:
        return list(range(one.first, one.last))
    share = (question.wanted - one.below) / one.things
    center, off = one.first + share * width, _deviation(share, one.things) * width
    if first and question.guess is not None:
        center, off = question.guess, question.width
    off = min(max(one.miss * off, 1.0), float(width))
    left = max(one.first, math.floor(center - off))
    right = min(one.last - 1, math.ceil(center + off))
    if left >= right:
        left, right = one.first, one.last - 1
    step = max(1, count - 1)
    return sorted({one.first, *(left + (right - left) * j // step for j in range(count))})


def _deviation(share: float, things: int) -> float:
    """Of the place of what has this share of things before it, where things lie at random."""
    return (math.sqrt(share * (1 - share) * things) + 1) / things


def _narrow_(one: Bracket, wanted: int, counts: Sequence[tuple[int, int]]) -> None:
    """With the sums at some indices, which rise."""
    for place, (index, count) in enumerate(counts):
        if count >= wanted:
            hit = place > 0 or one.first == index
            one.last, one.upto = index, count
            break
        one.first, one.below = index + 1, count
    else:
        hit = one.first == one.last
    one.miss = _CLOSE if hit else one.miss * _FURTHER
