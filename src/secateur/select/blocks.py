"""What a search may move: groups, or several that keep equal counts, with the counts they may have.

Rules become numbers here: the smallest count, multiples, what stays whole. Everything that is left
alone although it could be cut gets a note.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from secateur.core.errors import PlanMismatchError
from secateur.core.graph import Graph, Group
from secateur.core.plan import Scores
from secateur.select.constraints import Constraints
from secateur.select.matching import groups_made_by, groups_touching
from secateur.select.shares import count_of, shares


@dataclass(frozen=True, slots=True)
class Block:
    """Groups that keep equal counts (mostly one), and the counts they may have, ascending.

    asked: no selector asks for fewer; the model's own arithmetic may still end lower.
    """

    groups: tuple[Group, ...]
    allowed: tuple[int, ...]
    asked: int = 1

    @property
    def size(self) -> int:
        """Units of each group."""
        return self.groups[0].size

    def at_least(self, count: int) -> int:
        """The smallest allowed count that is not below `count`."""
        return self.allowed[bisect_left(self.allowed, min(count, self.size))]

    def after(self, count: int) -> int | None:
        """The next larger allowed count, None when there is none."""
        return None if count >= self.size else self.at_least(count + 1)


def make_blocks(
    graph: Graph, scores: Scores, constraints: Constraints
) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    """The blocks that may lose units, in the graph's order, and notes on groups left alone.

    Raises: ValueError for a pattern that matches nothing, PlanMismatchError for scores that do
    not belong to the graph.
    """
    _check_scores(graph, scores)
    asked = shares(graph, constraints.keep) if isinstance(constraints.keep, Mapping) else None
    candidates, notes = _candidates(graph, scores, constraints, asked)
    blocks = []
    for together in _equal_sets(graph, candidates, constraints):
        allowed = _allowed(together, scores, constraints)
        if len(allowed) > 1:
            least = max((asked or {}).get(group.id, 0.0) for group in together)
            blocks.append(Block(together, allowed, count_of(least, together[0].size)))
        else:
            notes += [_left_whole(group, constraints) for group in together]
    return tuple(blocks), tuple(notes)


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


def _equal_sets(
    graph: Graph, candidates: list[Group], constraints: Constraints
) -> list[tuple[Group, ...]]:
    """Candidates partitioned into sets that keep equal counts, in the graph's order."""
    leader = {group.id: group.id for group in candidates}
    for pattern in constraints.equal:
        first_of_size: dict[int, str] = {}
        for group in groups_made_by(graph, pattern, option="equal"):
            if group.id in leader:
                first = leader[first_of_size.setdefault(group.size, group.id)]
                mine = leader[group.id]
                leader = {id: first if lead == mine else lead for id, lead in leader.items()}
    sets: dict[str, list[Group]] = {}
    for group in candidates:
        sets.setdefault(leader[group.id], []).append(group)
    return [tuple(together) for together in sets.values()]


def _allowed(
    together: tuple[Group, ...], scores: Scores, constraints: Constraints
) -> tuple[int, ...]:
    size, step = together[0].size, constraints.multiple_of
    lowest = min(size, constraints.min_units)
    if constraints.threshold is not None:
        above = max(int((scores[g.id] >= constraints.threshold).sum()) for g in together)
        lowest = max(lowest, above)
    first = -(-lowest // step) * step  # the first multiple that is not below the lowest
    counts = tuple(range(first, size + 1, step))
    return counts if counts and counts[-1] == size else (*counts, size)


def _left_whole(group: Group, constraints: Constraints) -> str:
    rules = []
    if group.size <= constraints.min_units:
        rules.append(f"min_units={constraints.min_units}")
    if constraints.multiple_of > 1:
        rules.append(f"multiple_of={constraints.multiple_of}")
    if constraints.threshold is not None:
        rules.append(f"threshold={constraints.threshold:g}")
    return f"{group.id}: left whole, its {group.size} units are needed for {', '.join(rules)}"


def _check_scores(graph: Graph, scores: Scores) -> None:
    sizes = {group.id: group.size for group in graph.groups}
    for id, values in scores.items():
        if tuple(values.shape) != (sizes.get(id),):
            found = f"{sizes[id]} units" if id in sizes else "no such group"
            raise PlanMismatchError(
                f"the scores are another graph's: group {id!r} has scores of shape "
                f"{tuple(values.shape)} and {found} here; call score(graph, model) again"
            )
        if not values.isfinite().all():
            raise ValueError(f"the scores of group {id!r} hold NaN or infinite values")
