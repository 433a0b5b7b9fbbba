"""Which groups keep equal counts because the user says so: `equal` and `uniform_layers`.

Both tie groups of one size. What stays whole for another reason holds back what `uniform_layers`
ties to it, since one width has to serve all layers; `equal` speaks of the groups that are cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.core.graph import Graph, Group
from secateur.select.constraints import Constraints
from secateur.select.matching import groups_made_by
from secateur.select.repeats import repeated


def tied_sets(
    graph: Graph, candidates: Sequence[Group], constraints: Constraints
) -> tuple[list[tuple[Group, ...]], list[str]]:
    """Candidates partitioned into sets that keep equal counts, in the graph's order, and notes on
    those that must stay whole."""
    free = {group.id for group in candidates}
    ties = [set_ for pattern in constraints.equal for set_ in _equal(graph, pattern, free)]
    if constraints.uniform_layers:
        ties += repeated(graph.groups)
    sets: list[tuple[Group, ...]] = []
    notes: list[str] = []
    for together in _joined(graph, ties):
        fixed = next((group for group in together if group.id not in free), None)
        mine = tuple(group for group in together if group.id in free)
        if fixed is None:
            sets.append(together)
        elif mine:
            why = fixed.pinned or "stays whole"
            notes += [
                f"{group.id}: left whole, uniform_layers keeps it equal to {fixed.id} ({why})"
                for group in mine
            ]
    return sets, notes


def _equal(graph: Graph, pattern: str, free: set[str]) -> list[tuple[Group, ...]]:
    by_size: dict[int, list[Group]] = {}
    for group in groups_made_by(graph, pattern, option="equal"):
        if group.id in free:
            by_size.setdefault(group.size, []).append(group)
    return [tuple(together) for together in by_size.values()]


def _joined(graph: Graph, ties: Sequence[tuple[Group, ...]]) -> list[tuple[Group, ...]]:
    """All groups, those that a chain of ties connects together."""
    leader = {group.id: group.id for group in graph.groups}

    def find(id: str) -> str:
        while leader[id] != id:
            leader[id] = leader[leader[id]]
            id = leader[id]
        return id

    for first, *others in ties:
        for other in others:
            leader[find(other.id)] = find(first.id)
    sets: dict[str, list[Group]] = {}
    for group in graph.groups:
        sets.setdefault(find(group.id), []).append(group)
    return [tuple(together) for together in sets.values()]
