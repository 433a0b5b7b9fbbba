"""Sparse tables of assignments with a cost a row, and how they are joined and projected.

A table holds what a set of variables may be together and the least that the variables which were
already eliminated cost then. Bucket elimination (Dechter, Artificial Intelligence 1999) is a
series of joins, each followed by a projection that keeps the cheapest row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.select._counts_constraints import Constraint
from secateur.select._counts_polynomial import Column, Flags, Range

_DENSE = 2**17
"""Values this close together are looked up in an array."""
_LISTED = 2**17
"""A wider range is not listed."""


class TooLarge(Exception):
    """A join would have more rows than its `most`."""


@dataclass(frozen=True)
class Domain:
    """Values that a variable may take, ascending, and what each costs.

    open: the bounds of a variable with too many values to list, all of them for free (a product
    of other variables, say); it then has one cost, zero, and no values.
    """

    values: Column
    cost: Column
    open: Range | None = None

    @classmethod
    def between(cls, low: int, high: int) -> Domain:
        """All whole numbers from `low` to `high`, for free."""
        if high - low > _LISTED:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64), (low, high))
        values = np.arange(low, high + 1, dtype=np.int64)
        return cls(values, np.zeros_like(values))

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values) if self.open is None else self.open[1] - self.open[0] + 1

    @property
    def positive(self) -> bool:
        """Whether every value is at least one."""
        if self.open is not None:
            return self.open[0] > 0
        return bool(len(self.values)) and int(self.values[0]) > 0

    def free(self) -> Domain:
        """The same values for nothing."""
        return Domain(self.values, np.zeros_like(self.cost), self.open)

    def only(self, rows: Column) -> Domain:
        """The domain restricted to some of its rows."""
        return Domain(self.values[rows], self.cost[rows])

    def places(self, values: Column) -> Column:
        """Where the cost of each value stands, -1 for one that is not in the domain."""
        if self.open is not None:
            return np.where((values >= self.open[0]) & (values <= self.open[1]), 0, -1)
        if not len(self.values):
            return np.full(len(values), -1, dtype=np.int64)
        low, high = int(self.values[0]), int(self.values[-1])
        if high - low < _DENSE:  # several times faster than a binary search
            position = np.full(high - low + 2, -1, dtype=np.int64)
            position[self.values - low] = np.arange(len(self.values))
            inside = (values >= low) & (values <= high)
            return position[np.where(inside, values - low, high - low + 1)]
        places = np.searchsorted(self.values, values)
        places[places == len(self.values)] = 0
        return np.where(self.values[places] == values, places, -1)


@dataclass(frozen=True)
class Table:
    """Distinct rows over `columns` and the least cost of each."""

    columns: dict[int, Column]
    cost: Column


@dataclass
class Rows:
    """A join in progress: columns of the variables seen so far and the cost of each row."""

    columns: dict[int, Column]
    cost: Column
    limit: int | None
    most: int

    @classmethod
    def start(cls, limit: int | None, most: int) -> Rows:
        """One row without variables; rows above the cost `limit` go, `most` may stand."""
        return cls({}, np.zeros(1, dtype=np.int64), limit, most)

    def select(self, rows: Column | Flags) -> None:
        """Keep only these rows (positions or booleans)."""
        self.columns = {number: column[rows] for number, column in self.columns.items()}
        self.cost = self.cost[rows]

    def charge(self, cost: Column) -> None:
        """Add a cost a row, and drop the rows that pass the limit."""
        self.cost = self.cost + cost
        if self.limit is not None:
            within = self.cost <= self.limit
            if not within.all():
                self.select(within)

    def filter(self, constraint: Constraint) -> None:
        """Drop the rows in which a constraint is false."""
        self.select(np.broadcast_to(constraint.holds(self.columns), self.cost.shape))

    def compute(self, constraint: Constraint, number: int, domain: Domain) -> None:
        """Add the column that a constraint determines; values outside the domain go."""
        values, whole = constraint.solve(number, self.columns)
        values = np.broadcast_to(values, self.cost.shape)
        places = domain.places(values)
        found = (places >= 0) & whole
        self.columns[number] = values
        if not found.all():
            self.select(found)
            places = places[found]
        if domain.cost.any():
            self.charge(domain.cost[places])

    def admit(self, number: int, domain: Domain) -> None:
        """Charge a column's own cost; rows whose value is not in the domain go."""
        places = domain.places(self.columns[number])
        if not (found := places >= 0).all():
            self.select(found)
            places = places[found]
        if domain.cost.any():
            self.charge(domain.cost[places])

    def extend(self, columns: dict[int, Column], cost: Column) -> None:
        """Every combination with the rows of other variables."""
        rows, more = len(self.cost), len(cost)
        if rows * more > self.most:
            raise TooLarge
        if rows != 1:
            self.columns = {n: np.repeat(column, more) for n, column in self.columns.items()}
            self.cost = np.repeat(self.cost, more)
            columns = {n: np.tile(column, rows) for n, column in columns.items()}
            cost = np.tile(cost, rows)
        else:
            self.columns = {n: np.repeat(column, more) for n, column in self.columns.items()}
        self.columns |= columns
        self.charge(cost)

    def join(self, table: Table) -> None:
        """Every combination with the rows of a table that agree on the shared variables."""
        shared = [number for number in table.columns if number in self.columns]
        mine, theirs = _keys([self.columns[n] for n in shared], [table.columns[n] for n in shared])
        order = np.argsort(theirs, kind="stable")
        first = np.searchsorted(theirs[order], mine, side="left")
        matches = np.searchsorted(theirs[order], mine, side="right") - first
        total = int(matches.sum())
        if total > self.most:
            raise TooLarge
        self.select(np.repeat(np.arange(len(mine)), matches))
        # position within each run of matches: 0, 1, .. for every row of mine
        within = np.arange(total) - np.repeat(np.cumsum(matches) - matches, matches)
        taken = order[np.repeat(first, matches) + within]
        for number, column in table.columns.items():
            if number not in self.columns:
                self.columns[number] = column[taken]
        self.charge(table.cost[taken])


def _keys(mine: list[Column], theirs: list[Column]) -> tuple[Column, Column]:
    """One number a row, equal where all columns are equal."""
    key_a = np.zeros(len(mine[0]), dtype=np.int64)
    key_b = np.zeros(len(theirs[0]), dtype=np.int64)
    for a, b in zip(mine, theirs, strict=True):
        distinct, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
        key_a = key_a * len(distinct) + codes[: len(a)]
        key_b = key_b * len(distinct) + codes[len(a) :]
    return key_a, key_b


def project(rows: Rows, kept: list[int]) -> tuple[Table, Column]:
    """The cheapest row of each combination of `kept`: the table, and which rows these were."""
    columns = [rows.columns[number] for number in kept]
    if not len(rows.cost):
        return Table(dict(zip(kept, columns, strict=True)), rows.cost), np.zeros(0, dtype=np.int64)
    if len(kept) == 1 and np.ptp(columns[0]) < _DENSE:
        best = _cheapest_rows(columns[0], rows.cost)
    else:
        order = np.lexsort((rows.cost, *columns))
        fresh = np.zeros(len(order), dtype=bool)
        fresh[0] = True
        for column in columns:
            ordered = column[order]
            fresh[1:] |= ordered[1:] != ordered[:-1]
        best = order[fresh]
    return Table({n: c[best] for n, c in zip(kept, columns, strict=True)}, rows.cost[best]), best


def _cheapest_rows(column: Column, cost: Column) -> Column:
    """The first row of least cost for each value of one column, without a sort."""
    place = column - column.min()
    least = np.full(int(place.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, place, cost)
    rows = np.flatnonzero(cost == least[place])[::-1]
    row = np.full(len(least), -1, dtype=np.int64)
    row[place[rows]] = rows  # of repeated places the last assignment, the first row, stays
    return row[row >= 0]
