"""Wide constraints become chains of narrow ones, so that the search never joins many variables.

``a + b + c + d == e`` becomes ``s == a + b``, ``t == s + c``, ``t + d == e``: the cost of
choosing the best counts is then that of a few convolutions instead of a product of all domains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from secateur.select._counts_constraints import Compare, Constraint
from secateur.select._counts_polynomial import (
    Polynomial,
    Range,
    add,
    bounds,
    variable,
    variables_of,
)

WIDEST = 3
"""More variables than this are split."""


def split_wide(constraints: Sequence[Constraint], ranges: dict[int, Range]) -> list[Constraint]:
    """Constraints of at most `WIDEST` variables where sums allow it; new variables get ranges."""
    uses = Counter(number for constraint in constraints for number in constraint.variables())
    narrow: list[Constraint] = []
    for constraint in constraints:
        if len(constraint.variables()) <= WIDEST:
            narrow.append(constraint)
        elif isinstance(constraint, Compare):
            polynomial = _narrowed(constraint.polynomial, constraint, uses, ranges, narrow)
            narrow.append(replace(constraint, polynomial=polynomial))
        else:
            sides = [
                _narrowed(side, constraint, uses, ranges, narrow, widest=1)
                for side in (constraint.left, constraint.right)
            ]
            narrow.append(replace(constraint, left=sides[0], right=sides[1]))
    return narrow


def _narrowed(
    polynomial: Polynomial,
    constraint: Constraint,
    uses: Counter[int],
    ranges: dict[int, Range],
    narrow: list[Constraint],
    *,
    widest: int = WIDEST,
) -> Polynomial:
    """An equal polynomial of few variables; the definitions of the new ones go to `narrow`."""

    def named(meaning: Polynomial) -> int:
        number = min(*ranges, 0) - 1
        ranges[number] = bounds(meaning, ranges)
        definition = add(meaning, variable(number), scale=-1)
        narrow.append(Compare("eq", definition, constraint.sources))
        return number

    if len(variables_of(polynomial)) <= widest:
        return polynomial
    terms: list[tuple[int, int]] = []
    for monomial, coefficient in polynomial.items():
        # variables that nothing else uses first: they leave the search at once
        factors = sorted(monomial, key=lambda number: (uses[number], number))
        while len(factors) > 1:
            factors = [named({tuple(sorted(factors[:2])): 1}), *factors[2:]]
        if factors:
            terms.append((factors[0], coefficient))
    terms.sort(key=lambda term: (uses[term[0]], term[0]))
    while len(terms) > widest:
        (x, a), (y, b) = terms[:2]
        terms = [(named(add({(x,): a}, {(y,): b})), 1), *terms[2:]]
    total: Polynomial = {(): polynomial[()]} if () in polynomial else {}
    for number, coefficient in terms:
        total = add(total, {(number,): coefficient})
    return total
