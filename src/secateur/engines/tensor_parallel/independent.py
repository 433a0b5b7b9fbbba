"""The heaviest choice of items no two of which exclude each other.

A maximum-weight independent set: exact on what chains and trees of layers make of it, since each
branch falls apart into smaller graphs; greedy, heaviest first, once a component takes too long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

_PATIENCE = 20_000
"""Branches before a component is chosen greedily."""


class _TooMany(Exception):
    """The component has too many branches."""


def heaviest(weights: Mapping[int, float], conflicts: Mapping[int, Collection[int]]) -> list[int]:
    """Items chosen, ascending.

    >>> heaviest({0: 2.0, 1: 3.0, 2: 2.0}, {0: {1}, 1: {0, 2}, 2: {1}})
    [0, 2]
    """
    near = {item: frozenset(conflicts.get(item, ())) for item in weights}
    chosen: list[int] = []
    for component in _components(frozenset(weights), near):
        search = _Search(weights, near)
        try:
            chosen += search.best(component)[1]
        except _TooMany:
            chosen += _greedy(component, weights, near)
    return sorted(chosen)


class _Search:
    """Branches on the item with most conflicts, one component at a time."""

    def __init__(self, weights: Mapping[int, float], near: Mapping[int, frozenset[int]]) -> None:
        self.weights, self.near = weights, near
        self.known: dict[frozenset[int], tuple[float, list[int]]] = {}

    def best(self, items: frozenset[int]) -> tuple[float, list[int]]:
        """The greatest weight among `items`, and a choice that has it. Raises: _TooMany."""
        if items in self.known:
            return self.known[items]
        if len(self.known) > _PATIENCE:
            raise _TooMany
        busiest = max(items, key=lambda item: (len(self.near[item] & items), -item))
        without = self._apart(items - {busiest})
        weight, chosen = self._apart(items - {busiest} - self.near[busiest])
        taken = (weight + self.weights[busiest], [busiest, *chosen])
        found = self.known[items] = max(taken, without, key=lambda pair: pair[0])
        return found

    def _apart(self, items: frozenset[int]) -> tuple[float, list[int]]:
        parts = [self.best(part) for part in _components(items, self.near)]
        return sum(part[0] for part in parts), [item for part in parts for item in part[1]]


def _components(items: frozenset[int], near: Mapping[int, frozenset[int]]) -> list[frozenset[int]]:
    found, left = [], set(items)
    for start in sorted(items):
        if start not in left:
            continue
        component, pending = {start}, [start]
        while pending:
            for item in near[pending.pop()] & items - component:
                component.add(item)
                pending.append(item)
        left -= component
        found.append(frozenset(component))
    return found


def _greedy(
    items: frozenset[int], weights: Mapping[int, float], near: Mapping[int, frozenset[int]]
) -> list[int]:
    chosen: list[int] = []
    for item in sorted(items, key=lambda item: (-weights[item], item)):
        if not near[item] & set(chosen):
            chosen.append(item)
    return chosen
