"""Units given back where the budget has room: the last step from a level to counts.

One level step moves every group at once, so a little of the budget is left over. Groups whose
sizes are tied move together, to what the solver makes of a shallower level. Of the others each
takes one unit more in turn if it still fits, and one that does not fit is done. The order depends
on the counts alone, never on the budget, so a larger budget follows the same road and only stops
later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secateur.core.dims import Counts
from secateur.select.bundles import Bundle
from secateur.select.problem import Problem

REACHES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""How far back in level a bundle may go, tried in turn while there is `ROOM`: filling a small gap
must not undo the selector's choice, and no large gap is left because some move in leaps."""
ROOM = 1e-3
"""A gap to the budget that is worth more reach, as a share of the whole model."""
_PARTS = 16
"""Levels within reach at which tied groups are tried."""


def give_back(problem: Problem, counts: Counts, level: float) -> Counts:
    """The counts with as many units given back as still fit within reach of the level."""
    ladders = {id: values.sort(descending=True).values for id, values in problem.ranked.items()}
    tied = frozenset[int]().union(*problem.tied)
    free = [b for b in problem.bundles if b.groups[0].axis.index not in tied]
    counts = {**problem.whole, **counts}
    for reach in REACHES:
        for together in problem.tied:
            counts = _shallower(problem, together, counts, (level, reach))
        wanted = problem.wanted(max(0.0, level - reach))
        ceilings = {bundle: _ceiling(bundle, counts, wanted) for bundle in free}
        counts = _fill(problem, counts, ceilings, ladders)
        if problem.room(counts) < ROOM or reach >= level:
            break
    return counts


def _shallower(
    problem: Problem, together: frozenset[int], counts: Counts, levels: tuple[float, float]
) -> Counts:
    """Tied groups at the shallowest level within reach that fits, by bisection."""
    level, reach = levels
    deep, shallow = 0, _PARTS + 1
    while shallow - deep > 1:
        middle = (deep + shallow + 1) // 2 if deep else min(_PARTS, shallow - 1)
        wanted = problem.wanted(max(0.0, level - reach * middle / _PARTS))
        solved = problem.possible({**counts, **{n: wanted[n] for n in together}})
        raised = {**counts, **{n: solved[n] for n in together}}
        if problem.fits(raised):
            deep = middle
            if problem.share(raised) > problem.share(counts):
                counts = raised
        else:
            shallow = middle
    return counts


def _fill(
    problem: Problem, counts: Counts, ceilings: Mapping[Bundle, int], ladders: Mapping[str, Tensor]
) -> Counts:
    """Round after round each bundle takes one step, until none fits or all are at their ceiling."""
    open_ = list(ceilings)
    while open_:
        still_open = set()
        for bundle in _by_value(problem, open_, counts, ladders):
            larger = _step(problem, bundle, counts, ceilings[bundle])
            if larger is not None:
                counts = larger
                still_open.add(bundle)
        open_ = [bundle for bundle in open_ if bundle in still_open]
    return counts


def _ceiling(bundle: Bundle, counts: Counts, wanted: Mapping[int, int]) -> int:
    """At most what the selector asks within reach, at least one step."""
    count = _count(bundle, counts)
    return max(wanted[bundle.groups[0].axis.index], bundle.after(count) or count)


def _step(problem: Problem, bundle: Bundle, counts: Counts, ceiling: int) -> Counts | None:
    """The counts with one step more for a bundle, or None where it has to stay."""
    after = bundle.after(_count(bundle, counts))
    if after is None or after > ceiling:
        return None
    raised = {**counts, **{group.axis.index: after for group in bundle.groups}}
    return raised if problem.fits(raised) else None


def _by_value(
    problem: Problem, bundles: Sequence[Bundle], counts: Counts, ladders: Mapping[str, Tensor]
) -> list[Bundle]:
    """Bundles with room, by importance of their next units per added cost, highest first."""
    now = problem.share(counts)
    values = []
    for bundle in bundles:
        count = _count(bundle, counts)
        after = bundle.after(count)
        if after is None:
            continue
        gain = sum(float(ladders[group.id][count:after].sum()) for group in bundle.groups)
        raised = {**counts, **{group.axis.index: after for group in bundle.groups}}
        cost = problem.share(raised) - now
        values.append((gain / cost if cost > 0 else torch.inf, bundle))
    return [bundle for _, bundle in sorted(values, key=lambda pair: -pair[0])]


def _count(bundle: Bundle, counts: Counts) -> int:
    return counts.get(bundle.groups[0].axis.index, bundle.size)
