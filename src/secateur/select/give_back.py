"""Units given back where the budget has room: the last step from a level to counts.

One level step moves every group at once, so a little of the budget is left over. Bundles are
visited in order of importance per cost, each takes one step more if it still fits, and one that
does not fit is done. The order depends on the counts alone, never on the budget, so a larger
budget follows the same road and only stops later.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def give_back(problem: Problem, counts: Counts, level: float) -> Counts:
    """The counts with as many units given back as still fit within reach of the level."""
    ladders = {id: values.sort(descending=True).values for id, values in problem.ranked.items()}
    for reach in REACHES:
        wanted = problem.wanted(max(0.0, level - reach))
        ceilings = {bundle: _ceiling(bundle, counts, wanted) for bundle in problem.bundles}
        counts = _fill(problem, counts, ceilings, ladders)
        if problem.room(counts) < ROOM or reach >= level:
            break
    return counts


def _fill(
    problem: Problem, counts: Counts, ceilings: Mapping[Bundle, int], ladders: Mapping[str, Tensor]
) -> Counts:
    """Round after round each bundle takes one step, until none fits or all are at their ceiling."""
    open_ = list(problem.bundles)
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
    if not problem.fits(raised):
        return None
    if not any(group.axis.index in problem.coupled for group in bundle.groups):
        return raised
    wanted = {**problem.whole, **raised}
    solved = problem.possible(wanted)
    if any(solved[index] < count for index, count in wanted.items()):
        return None  # the model's arithmetic would take units from another group
    return solved if problem.fits(solved) else None


def _by_value(
    problem: Problem, bundles: list[Bundle], counts: Counts, ladders: Mapping[str, Tensor]
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
