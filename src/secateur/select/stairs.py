"""The stops at which groups may halt on their way from whole to smallest.

A group goes down a flight of stairs, one stop of counts after another; groups whose sizes are tied
go down one flight together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secateur.select.bundles import Bundle

if TYPE_CHECKING:
    from secateur.select.problem import Problem

Float64Array = NDArray[np.float64]

STOPS = 32
"""Counts of one group that are looked at; of more, multiples of eight before others."""


@dataclass(frozen=True)
class Stairs:
    """counts: of the axes that move together, from all units on; loss: at each stop, from zero on;
    removed: units gone at each stop, of all groups."""

    counts: tuple[Mapping[int, int], ...]
    loss: tuple[float, ...]
    removed: tuple[int, ...]


def stairs_of(problem: Problem) -> tuple[Stairs, ...]:
    """One flight for each bundle, and one for all bundles that a size relation ties."""
    together: dict[object, list[Bundle]] = {}
    for number, bundle in enumerate(problem.bundles):
        axis = bundle.groups[0].axis.index
        tied = next((k for k, axes in enumerate(problem.tied) if axis in axes), None)
        together.setdefault(("alone", number) if tied is None else tied, []).append(bundle)
    lost = {id: _lost(values) for id, values in problem.ranked.items()}
    return tuple(_stairs(problem, bundles, lost) for bundles in together.values())


def _lost(values_U: Tensor) -> Float64Array:
    """What is lost with the first n units, n from none to all; the lowest scores go first."""
    ordered = np.sort(values_U.numpy().astype(np.float64))
    return np.concatenate([[0.0], np.cumsum(ordered)])


def _stairs(
    problem: Problem, bundles: Sequence[Bundle], lost: Mapping[str, Float64Array]
) -> Stairs:
    if len(bundles) == 1:
        stops = [{bundles[0]: count} for count in _thinned(bundles[0])]
    else:
        stops = _tied_stops(problem, bundles)
    counts, loss, removed = [], [], []
    for stop in stops:
        pairs = [(group, count) for bundle, count in stop.items() for group in bundle.groups]
        counts.append({group.axis.index: count for group, count in pairs})
        loss.append(sum(float(lost[group.id][group.size - count]) for group, count in pairs))
        removed.append(sum(group.size - count for group, count in pairs))
    return Stairs(tuple(counts), tuple(loss), tuple(removed))


def _tied_stops(problem: Problem, bundles: Sequence[Bundle]) -> list[dict[Bundle, int]]:
    """What the relations make of equal shares of the tied bundles, from all units on."""
    stops: list[dict[Bundle, int]] = []
    for k in range(STOPS):
        wanted = {b: b.at_least(math.ceil((1.0 - k / STOPS) * b.size)) for b in bundles}
        axes = {g.axis.index: count for b, count in wanted.items() for g in b.groups}
        solved = problem.possible({**problem.whole, **axes})
        stop = {b: solved[b.groups[0].axis.index] for b in bundles}
        if not stops or all(stop[b] <= count for b, count in stops[-1].items()):
            stops.append(stop)
    return [one for k, one in enumerate(stops) if k == 0 or one != stops[k - 1]]


def _thinned(bundle: Bundle) -> list[int]:
    """Counts to stop at, descending: all that are allowed, or about `STOPS` of them."""
    allowed = [count for count in bundle.allowed if count >= bundle.asked] or [bundle.allowed[-1]]
    if len(allowed) > STOPS:
        every = next(n for n in (2, 4, 8, 16, 32, 64, 128, 2**30) if bundle.size // n <= STOPS)
        few = {count for count in allowed if count % every == 0}
        allowed = sorted(few | {allowed[0], allowed[-1]})
    return allowed[::-1]
