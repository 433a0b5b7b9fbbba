"""The front of several goals: the points that no other point beats, and how good a front is.

Plain numbers, any number of goals, each to be made small or large. All of it is exact: equal
points do not beat each other, so all of them stand in the front. What the search found and what
it is compared with go through the same three functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = Sequence[float]


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of a model, and whether more of it is better."""

    name: str
    maximise: bool = False

    def loss(self, value: float) -> float:
        """The value so that less is better."""
        return -value if self.maximise else value


def beats(one: Point, other: Point, goals: Sequence[Goal]) -> bool:
    """Whether a point is at least as good in every goal, and better in one.

    >>> goals = (Goal("accuracy", maximise=True), Goal("latency"))
    >>> beats((0.9, 5.0), (0.9, 6.0), goals), beats((0.9, 5.0), (0.9, 5.0), goals)
    (True, False)
    """
    a, b = _losses(one, goals), _losses(other, goals)
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def front(points: Sequence[Point], goals: Sequence[Goal]) -> tuple[int, ...]:
    """Indices of the points that no other one beats, from the best by the first goal on.

    Raises: ValueError for a point with NaN, or with another number of values than goals.

    >>> goals = (Goal("accuracy", maximise=True), Goal("latency"))
    >>> front([(0.9, 5.0), (0.8, 2.0), (0.7, 3.0), (0.8, 2.0)], goals)
    (0, 1, 3)
    """
    losses = [_losses(point, goals) for point in points]
    # in this order a point can be beaten only by one before it
    order = sorted(range(len(losses)), key=lambda index: (losses[index], index))
    found: list[int] = []
    for index in order:
        mine = losses[index]
        if not any(_covers(losses[other], mine) for other in found if losses[other] != mine):
            found.append(index)
    return tuple(found)


def beaten(line: Sequence[Point], *, by: Sequence[Point], goals: Sequence[Goal]) -> tuple[int, ...]:
    """Indices of the points of a line that some point of the other set beats."""
    return tuple(
        index for index, point in enumerate(line) if any(beats(one, point, goals) for one in by)
    )


def dominates(found: Sequence[Point], line: Sequence[Point], goals: Sequence[Goal]) -> bool:
    """Whether every point of the line is beaten by some point that was found.

    >>> goals = (Goal("accuracy", maximise=True), Goal("macs"))
    >>> dominates([(0.9, 0.5), (0.8, 0.2)], [(0.85, 0.5), (0.7, 0.3)], goals)
    True
    >>> dominates([(0.9, 0.5)], [(0.9, 0.5)], goals)
    False
    """
    return bool(line) and len(beaten(line, by=found, goals=goals)) == len(line)


def hypervolume(points: Sequence[Point], reference: Point, goals: Sequence[Goal]) -> float:
    """How much lies between the points and a reference that is worse: more is a better front.

    Points that are not better than the reference in every goal add nothing. Exact, by slices along
    the last goal; the time grows with the number of points to the power of the goals.

    Source: Zitzler & Thiele, Multiobjective Optimization Using Evolutionary Algorithms, PPSN 1998;
    While et al., A Faster Algorithm for Calculating Hypervolume, IEEE TEC 2006 (slicing).

    >>> goals = (Goal("a"), Goal("b"))
    >>> hypervolume([(1.0, 3.0), (2.0, 1.0)], (4.0, 4.0), goals)
    7.0
    """
    worst = _losses(reference, goals)
    inside = [_losses(point, goals) for point in points]
    return _volume([p for p in inside if all(x < w for x, w in zip(p, worst, strict=True))], worst)


def _volume(points: Sequence[tuple[float, ...]], worst: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(worst) == 1:
        return worst[0] - min(point[0] for point in points)
    levels = sorted({point[-1] for point in points})
    total = 0.0
    for level, above in zip(levels, [*levels[1:], worst[-1]], strict=True):
        slice_ = [point[:-1] for point in points if point[-1] <= level]
        total += (above - level) * _volume(slice_, worst[:-1])
    return total


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(one, other, strict=True))


def _losses(point: Point, goals: Sequence[Goal]) -> tuple[float, ...]:
    if len(point) != len(goals) or any(math.isnan(value) for value in point):
        names = ", ".join(goal.name for goal in goals)
        raise ValueError(f"the point {tuple(point)} needs one number for each of: {names}")
    return tuple(goal.loss(value) for goal, value in zip(goals, point, strict=True))
