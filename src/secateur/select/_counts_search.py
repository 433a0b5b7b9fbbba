"""The cheapest assignment of one connected component, exactly, by bucket elimination.

Variables leave one by one, those with the fewest neighbours first: their constraints are joined
into a sparse table, and the cheapest row for each combination of the neighbours stays. Of
``C == h_i * d_i`` in forty blocks each block leaves one list "what does this C cost here", and
the lists add up. Where a join would be too large, only rows below a bound on the total cost are
kept, and the bound is raised until a solution lies within it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from secateur.select._counts_constraints import Constraint
from secateur.select._counts_polynomial import Column
from secateur.select._counts_tables import Domain, Rows, Table, TooLarge, project

Item = Constraint | Table
Step = tuple[dict[int, Column], dict[int, Column]]
"""One elimination: the kept columns and, row by row, the best values of those that left."""
UNBOUNDED, BOUNDED = 60_000, 400_000
"""Rows of the largest join without a bound on the cost, and with one."""
_THIN = (256, 64, 16, 4, 1)


def cheapest(
    domains: Mapping[int, Domain], constraints: Sequence[Constraint], *, unit: int
) -> dict[int, int] | None:
    """The assignment of least cost, None when there is none.

    unit: what an axis costs that keeps nothing of what was wanted; bounds are multiples of it.
    """
    base = {
        n: replace(d, cost=d.cost - d.cost.min(initial=np.iinfo(np.int64).max))
        for n, d in domains.items()
    }
    try:
        return _eliminate(base, constraints, None)
    except TooLarge:
        pass
    most = sum(int(domain.cost.max(initial=0)) for domain in base.values())
    limit = unit // 1024
    try:
        while limit <= 4 * most:
            found = _eliminate(base, constraints, limit)
            if found is not None:
                return found
            limit *= 4
    except TooLarge:
        return _thinned(base, constraints)
    return None


def _thinned(
    domains: Mapping[int, Domain], constraints: Sequence[Constraint]
) -> dict[int, int] | None:
    """A good assignment of a component that is too entangled for the best one.

    Each variable keeps its cheapest values and its largest, which is its present one.
    """
    for width in _THIN:
        thin = {}
        for number, domain in domains.items():
            rows = np.argsort(domain.cost, kind="stable")[:width]
            if domain.cost.any():
                domain = domain.only(np.union1d(rows, len(domain.values) - 1))
            thin[number] = domain
        try:
            found = _eliminate(thin, constraints, None)
        except TooLarge:
            continue
        if found is not None:
            return found
    return {n: int(domain.values[-1]) for n, domain in domains.items() if domain.open is None}


def _eliminate(
    given: Mapping[int, Domain], constraints: Sequence[Constraint], limit: int | None
) -> dict[int, int] | None:
    domains = {number: _within(domain, limit) for number, domain in given.items()}
    buckets = _Buckets(constraints, domains)
    steps: list[Step] = []
    while domains:
        bucket, gone, kept = buckets.next()
        scope = sorted((*gone, *kept))
        local = {n: domains[n] for n in scope}
        if limit is None:  # the cost of those that stay is charged when they leave
            local |= {n: domains[n].free() for n in kept}
        rows = _join(bucket, scope, local, limit)
        if limit is not None:
            for n in kept:
                rows.cost = rows.cost - domains[n].cost[domains[n].places(rows.columns[n])]
        table, best = project(rows, kept)
        if not len(table.cost):
            return None
        steps.append((table.columns, {n: rows.columns[n][best] for n in gone}))
        for n in gone:
            del domains[n]
        if len(kept) == 1:
            domains[kept[0]] = _charged(domains[kept[0]], table, limit)
        buckets.replace(gone, kept, table, domains)
    return _read_back(steps)


class _Buckets:
    """Constraints and tables by variable, and which variable leaves next."""

    def __init__(self, constraints: Sequence[Constraint], domains: Mapping[int, Domain]) -> None:
        self._positions = itertools.count()
        self._entries: dict[int, tuple[Item, set[int]]] = {}
        self._users: dict[int, set[int]] = {number: set() for number in domains}
        for constraint in constraints:
            self._add(constraint, constraint.variables())
        self._rank: dict[int, tuple[int, int, int]] = {}
        self._update(domains, domains)

    def next(self) -> tuple[list[tuple[Item, set[int]]], list[int], list[int]]:
        """What the variable with the fewest neighbours, then with the smallest domain, takes part
        in; the variables that nothing else mentions; and the others."""
        number = min(self._rank.values())[2]
        mine = sorted(self._users[number])
        bucket = [self._entries[position] for position in mine]
        scope = set[int]({number}).union(*(names for _, names in bucket))
        gone = [n for n in scope if self._users[n] <= self._users[number]]
        return bucket, sorted(gone), sorted(scope.difference(gone))

    def replace(
        self, gone: Sequence[int], kept: Sequence[int], table: Table, domains: Mapping[int, Domain]
    ) -> None:
        """Take out what `next` gave, and put the table in its place."""
        for position in set[int]().union(*(self._users.pop(n) for n in gone)):
            _, names = self._entries.pop(position)
            for number in names.intersection(kept):
                self._users[number].discard(position)
        for number in gone:
            del self._rank[number]
        if len(kept) > 1:
            self._add(table, set(kept))
        self._update(kept, domains)

    def _add(self, item: Item, names: set[int]) -> None:
        position = next(self._positions)
        self._entries[position] = (item, names)
        for number in names:
            self._users[number].add(position)

    def _update(self, numbers: Iterable[int], domains: Mapping[int, Domain]) -> None:
        for n in numbers:
            near = set[int]().union(*(self._entries[position][1] for position in self._users[n]))
            self._rank[n] = (len(near), domains[n].size, n)


def _within(domain: Domain, limit: int | None) -> Domain:
    if limit is None or domain.open is not None:
        return domain
    return domain.only(np.flatnonzero(domain.cost <= limit))


def _charged(domain: Domain, table: Table, limit: int | None) -> Domain:
    """A domain restricted to a one-column table, with the table's cost."""
    ((_, values),) = table.columns.items()
    places = domain.places(values)
    return _within(Domain(values, domain.cost[places] + table.cost), limit)


def _join(
    bucket: Sequence[tuple[Item, set[int]]],
    scope: Sequence[int],
    domains: Mapping[int, Domain],
    limit: int | None,
) -> Rows:
    """All rows over the variables of a bucket that its items allow."""
    rows = Rows.start(limit, UNBOUNDED if limit is None else BOUNDED)
    pending = list(bucket)
    while True:
        progress = True
        while progress:
            progress = False
            for entry in pending:
                if _apply(entry, rows, domains):
                    pending.remove(entry)
                    progress = True
                    break
        missing = [number for number in scope if number not in rows.columns]
        if not missing:
            return rows
        _grow(rows, missing, pending, domains)


def _apply(entry: tuple[Item, set[int]], rows: Rows, domains: Mapping[int, Domain]) -> bool:
    """Use an item if the columns at hand suffice; whether it was used up."""
    item, names = entry
    unknown = [number for number in names if number not in rows.columns]
    if isinstance(item, Table):
        if len(unknown) == len(names):
            return False
        rows.join(item)
        for number in unknown:
            rows.admit(number, domains[number])
        return True
    if not unknown:
        rows.filter(item)
        return True
    if len(unknown) > 1 or not item.determines(unknown[0], lambda n: domains[n].positive):
        return False
    rows.compute(item, unknown[0], domains[unknown[0]])
    return True


def _grow(
    rows: Rows,
    missing: Sequence[int],
    pending: list[tuple[Item, set[int]]],
    domains: Mapping[int, Domain],
) -> None:
    """Bring in the smallest table, or the values of the smallest domain."""
    tables = [(len(item.cost), n) for n, (item, _) in enumerate(pending) if isinstance(item, Table)]
    if tables and not rows.columns:
        table, _ = pending.pop(min(tables)[1])
        assert isinstance(table, Table)
        rows.extend(table.columns, table.cost)
        for number in table.columns:
            rows.admit(number, domains[number])
        return
    number = min(missing, key=lambda n: (domains[n].size, n))
    if domains[number].open is not None:
        raise TooLarge
    rows.extend({number: domains[number].values}, domains[number].cost)


def _read_back(steps: Sequence[Step]) -> dict[int, int]:
    """Values of all variables, the last that left first."""
    values: dict[int, int] = {}
    for kept, gone in reversed(steps):
        match = None
        for number, column in kept.items():
            same = column == values[number]
            match = same if match is None else match & same
        row = 0 if match is None else int(np.argmax(match))
        values |= {number: int(column[row]) for number, column in gone.items()}
    return values
