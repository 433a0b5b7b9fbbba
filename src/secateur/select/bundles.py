"""What a search may move: groups, or several that keep equal counts, with the counts they may have.

Rules become numbers here: the smallest count, multiples, what stays whole. Everything that is left
alone although it could be cut gets a note.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm

import torch

from secateur.core.errors import BudgetError, PlanMismatchError
from secateur.core.graph import Graph, Group
from secateur.core.plan import Scores
from secateur.select.alignment import unit_steps
from secateur.select.constraints import Constraints
from secateur.select.matching import groups_made_by, groups_touching
from secateur.select.sharding import check_whole, no_count, sharded_groups
from secateur.select.shares import count_of, shares
from secateur.select.ties import tied_sets


@dataclass(frozen=True, slots=True)
class Bundle:
    """Groups that keep equal counts (mostly one), and the counts they may have, ascending.

    asked: no selector asks for fewer; the model's own arithmetic may still end lower. step: what
    `multiple_of` makes of it here; all units may be kept that are no multiple.
    """

    groups: tuple[Group, ...]
    allowed: tuple[int, ...]
    asked: int = 1
    step: int = 1

    @property
    def size(self) -> int:
        """Units of each group."""
        return self.groups[0].size

    def at_least(self, count: int) -> int:
        """The smallest allowed count that is not below `count`, the largest where all are."""
        return self.allowed[min(bisect_left(self.allowed, count), len(self.allowed) - 1)]

    def after(self, count: int) -> int | None:
        """The next larger allowed count, None when there is none."""
        return None if count >= self.allowed[-1] else self.at_least(count + 1)


def make_bundles(
    graph: Graph, scores: Scores, constraints: Constraints
) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
    """The bundles that may lose units, in the graph's order, and notes on groups left alone.

    Raises: ValueError for a pattern that matches nothing, PlanMismatchError for scores that do
    not belong to the graph, BudgetError for a group that `tensor_parallel` excludes.
    """
    _check_scores(graph, scores)
    asked = shares(graph, constraints.keep) if isinstance(constraints.keep, Mapping) else None
    candidates, notes = _candidates(graph, scores, constraints, asked)
    sets, held = tied_sets(graph, candidates, constraints)
    notes += held
    parallel = constraints.tensor_parallel
    sharded = {group.id for group in sharded_groups(graph)} if parallel > 1 else set[str]()
    candidate = {group.axis.index for group in candidates}
    steps = unit_steps(graph, candidate, constraints.multiple_of)
    bundles = []
    for together in sets:
        devices = parallel if any(group.id in sharded for group in together) else 1
        step = lcm(*(steps.get(group.axis.index, 1) for group in together))
        allowed = _allowed(together, scores, constraints, devices, step)
        if allowed != (together[0].size,):
            least = max((asked or {}).get(group.id, 0.0) for group in together)
            asked_for = count_of(least, together[0].size)
            bundles.append(Bundle(together, allowed, asked_for, step))
        else:
            notes += [_left_whole(group, constraints) for group in together]
    moving = {group.id for bundle in bundles for group in bundle.groups}
    check_whole([graph.group(id) for id in sharded - moving], notes, parallel)
    return tuple(bundles), tuple(notes)


def _candidates(
    graph: Graph,
    scores: Scores,
    constraints: Constraints,
    asked: Mapping[str, float] | None,
) -> tuple[list[Group], list[str]]:
    """Groups that may lose units, and notes on those left alone. asked: shares of single groups."""
    kept = {
        id: pattern
        for pattern in constraints.keep_modules
        for id in groups_touching(graph, pattern)
    }
    chosen, named = _chosen(graph, constraints, asked)
    candidates, notes = [], []
    for group in graph.groups:
        by_name = group.id in named
        if group.pinned is not None:
            if by_name:
                notes.append(f"{group.id}: not cut although asked for, {group.pinned}")
        elif chosen is not None and group.id not in chosen:
            continue
        elif group.id in kept:
            notes.append(f"{group.id}: left whole by keep_modules={kept[group.id]!r}")
        elif group.structural and not (constraints.include_structural or by_name):
            notes.append(f"{group.id}: left whole, structural; include_structural=True cuts it")
        elif group.id not in scores:
            notes.append(f"{group.id}: left whole, it has no score")
        else:
            candidates.append(group)
    return candidates, notes


def _chosen(
    graph: Graph, constraints: Constraints, asked: Mapping[str, float] | None
) -> tuple[set[str] | None, set[str]]:
    """Ids of the only groups to prune (None: all), and of those that were asked for by name."""
    if constraints.groups is None:
        named = set(constraints.keep) if isinstance(constraints.keep, Mapping) else set()
        return None if asked is None else set(asked), named
    patterns = constraints.groups
    chosen = {g.id for p in patterns for g in groups_made_by(graph, p, option="groups")}
    return (chosen if asked is None else chosen & set(asked)), chosen


def _allowed(
    together: tuple[Group, ...], scores: Scores, constraints: Constraints, devices: int, step: int
) -> tuple[int, ...]:
    """Ascending. `devices` must divide each count, `step` each but the whole.

    Raises: BudgetError when there is none.
    """
    size = together[0].size
    lowest = min(size, constraints.min_units)
    if constraints.threshold is not None:
        above = max(int((scores[g.id] >= constraints.threshold).sum()) for g in together)
        lowest = max(lowest, above)
    multiple, step = step, lcm(step, devices)
    first = -(-lowest // step) * step  # the first multiple that is not below the lowest
    counts = set(range(first, size + 1, step))
    if size % devices == 0:
        counts.add(size)
    if not counts:
        raise BudgetError(no_count(together[0], devices, lowest=lowest, multiple_of=multiple))
    return tuple(sorted(counts))


def _left_whole(group: Group, constraints: Constraints) -> str:
    rules = []
    if group.size <= constraints.min_units:
        rules.append(f"min_units={constraints.min_units}")
    if constraints.multiple_of > 1:
        rules.append(f"multiple_of={constraints.multiple_of}")
    if constraints.tensor_parallel > 1:
        rules.append(f"tensor_parallel={constraints.tensor_parallel}")
    if constraints.threshold is not None:
        rules.append(f"threshold={constraints.threshold:g}")
    return f"{group.id}: left whole, its {group.size} units are needed for {', '.join(rules)}"


def _check_scores(graph: Graph, scores: Scores) -> None:
    sizes = {group.id: group.size for group in graph.groups}
    if scores and not torch.cat([values.flatten() for values in scores.values()]).isfinite().all():
        id = next(id for id, values in scores.items() if not values.isfinite().all())
        raise ValueError(f"the scores of group {id!r} hold NaN or infinite values")
    for id, values in scores.items():
        if tuple(values.shape) != (sizes.get(id),):
            found = f"{sizes[id]} units" if id in sizes else "no such group"
            raise PlanMismatchError(
                f"the scores are another graph's: group {id!r} has scores of shape "
                f"{tuple(values.shape)} and {found} here; call score(graph, model) again"
            )
