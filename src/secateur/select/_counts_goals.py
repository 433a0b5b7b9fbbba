"""What is wanted of a variable, and what another value of it costs, in whole numbers.

Three things count, each before the next: how many variables keep all of their units although
fewer were wanted; the sum of ``weight * |count - wanted| / size``; and how many units go. A cost
is one int64 that holds all three, `Scale` says how they are packed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from secateur.select._counts_polynomial import Column, Flags, Range

WHOLE = 2**12
"""The weight of a variable whose deviation counts in full."""
_FINEST = 720_720 * WHOLE
"""What a deviation of a whole axis costs at most: a multiple of most sizes, so that ties are
ties."""
_LARGEST = 2**62
"""No sum of costs is above this."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How a cost is packed: ``(whole * kept_whole + deviation) * tie + removed``.

    deviation: of a whole axis of full weight.
    """

    whole: int
    deviation: int
    tie: int

    @property
    def unit(self) -> int:
        """What an axis costs that keeps nothing of what was wanted."""
        return self.deviation * self.tie


@dataclass(frozen=True)
class Goal:
    """The value wanted for a variable of this size, and the values it may take (None: all).

    weight: how much a deviation counts, in units of 1 / `WHOLE`. insist: whether all units, where
    fewer were wanted, are worse than any deviation.
    """

    size: int
    wanted: int
    allowed: Column | None = None
    weight: int = WHOLE
    insist: bool = True

    def wanting(self, count: int) -> Goal:
        """The same goal with another wish, at least one unit and at most all."""
        count = min(max(count, 1), self.size)
        if count == self.wanted:
            return self
        return Goal(self.size, count, self.allowed, self.weight, self.insist)

    def cost(self, values: Column, scale: Scale) -> Column:
        """What each of these values costs."""
        full = self.size * WHOLE
        off = np.abs(values - self.wanted)
        cost = (scale.deviation * self.weight * off + full // 2) // full
        if self.insist and self.wanted < self.size:
            cost = cost + scale.whole * (values >= self.size)
        return cost * scale.tie + np.maximum(self.size - values, 0)

    def permits(self, values: Column) -> Flags:
        """Which of these values are allowed."""
        return np.ones(len(values), bool) if self.allowed is None else np.isin(values, self.allowed)

    def range(self) -> Range:
        """Smallest and largest allowed value."""
        if self.allowed is None:
            return 1, self.size
        return int(self.allowed.min()), int(self.allowed.max())

    def best(self) -> int:
        """The value nearest to what is wanted."""
        if self.allowed is None:
            return min(max(self.wanted, 1), self.size)
        place = int(np.searchsorted(self.allowed, self.wanted))
        if place < len(self.allowed) and self.allowed[place] == self.wanted:
            return self.wanted
        cost = self.cost(self.allowed, scale_for([self]))
        return int(self.allowed[np.argmin(cost)])


def scale_for(goals: Iterable[Goal]) -> Scale:
    """The finest scale in which no sum of the costs of these goals overflows.

    Every deviation is rounded by less than one step, so a sum of n is at most n steps off.
    """
    goals = list(goals)
    tie = 1 + sum(goal.size for goal in goals)
    heaviest = 1 + sum(goal.weight for goal in goals) / WHOLE
    room = _LARGEST // tie // (len(goals) + 2)
    deviation = max(min(_FINEST, int((room - len(goals)) / heaviest)), 1)
    return Scale(int(heaviest * deviation) + len(goals), deviation, tie)
