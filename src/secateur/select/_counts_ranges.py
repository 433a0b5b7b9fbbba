"""Bounds for the variables that are no counts: fields without a definition, and quotients.

A bound only has to be wide enough, the constraints do the rest. It follows from an equation that
is linear in the variable where there is one; a field that no equation bounds may grow to twice
its value, or to the largest number that it is compared with.
"""

from __future__ import annotations

from secateur.select._counts_compile import System
from secateur.select._counts_constraints import Compare, Constraint, Divide
from secateur.select._counts_polynomial import (
    Range,
    bounds,
    constant_value,
    split_linear,
    variables_of,
)


def bound_variables(system: System) -> None:
    """Give every variable of the constraints a range in `system.ranges`."""
    users: dict[int, list[Constraint]] = {}
    for constraint in system.constraints:
        for number in constraint.variables():
            if number not in system.ranges:
                users.setdefault(number, []).append(constraint)
    fields = {number: system.old.get(key) for key, number in system.fields.items()}
    while users:
        found = {n: r for n in users if (r := _bound(n, users[n], system.ranges)) is not None}
        if not found:
            # fields before quotients, in the order of the relations
            number = max(users, key=lambda n: (n in fields, n))
            old = fields.get(number)
            found = {number: _default(number, old, users[number], system.ranges)}
        for number, (low, high) in found.items():
            if (fields.get(number) or 0) > 0:  # what was positive stays positive
                low, high = max(low, 1), max(high, 1)
            system.ranges[number] = (low, high)
            del users[number]


def _bound(number: int, users: list[Constraint], ranges: dict[int, Range]) -> Range | None:
    """The range that the first equation gives whose other variables have ranges."""
    for user in users:
        if any(other not in ranges for other in user.variables() - {number}):
            continue
        if isinstance(user, Divide):
            if user.out == {(number,): 1}:
                return _division_bound(user, ranges)
        elif user.op == "eq":
            interval = _equation_bound(number, user, ranges)
            if interval is not None:
                return interval
    return None


def _division_bound(user: Divide, ranges: dict[int, Range]) -> Range:
    low, high = bounds(user.right, ranges)
    largest = max(abs(low), abs(high))
    if user.op == "mod":
        return (0 if low >= 0 else -largest, largest)
    low, high = bounds(user.left, ranges)
    return min(low, -high, 0), max(high, -low, 0)


def _equation_bound(number: int, user: Compare, ranges: dict[int, Range]) -> Range | None:
    split = split_linear(user.polynomial, number)
    if split is None:
        return None
    low, high = bounds(split[0], ranges)
    if low <= 0 <= high:
        return None
    values = [-value // slope for value in bounds(split[1], ranges) for slope in (low, high)]
    return min(values), max(values) + 1


def _default(
    number: int, old: int | None, users: list[Constraint], ranges: dict[int, Range]
) -> Range:
    """Wide enough for a variable that no equation bounds."""
    largest = 2 * abs(old) if old is not None else 1
    for user in users:
        for polynomial in (
            (user.polynomial,) if isinstance(user, Compare) else (user.left, user.out)
        ):
            known = {
                monomial: coefficient
                for monomial, coefficient in polynomial.items()
                if all(other in ranges for other in monomial)
            }
            if variables_of(known) or constant_value(known):
                largest = max(largest, *map(abs, bounds(known, ranges)))
    return (1, largest) if old is None or old > 0 else (min(old, 0), largest)
