"""Polynomials with integer coefficients over the count solver's variables.

A polynomial maps a monomial (sorted variable numbers, repeated for a power) to its coefficient;
zero coefficients are left out, so two equal polynomials are equal dictionaries. Sizes of
dimensions are such polynomials: the counts of a product's axes multiply, a concatenation adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.core.dims import Axis, Counts, Dim

Monomial = tuple[int, ...]
Polynomial = dict[Monomial, int]
Column = NDArray[np.int64]
Flags = NDArray[np.bool_]
Range = tuple[int, int]
"""Smallest and largest value, both included."""


def constant(value: int) -> Polynomial:
    """The polynomial that is a number."""
    return {(): value} if value else {}


def variable(number: int) -> Polynomial:
    """The polynomial that is one variable."""
    return {(number,): 1}


def constant_value(polynomial: Polynomial) -> int | None:
    """The number that a constant polynomial is, None for any other."""
    if not polynomial:
        return 0
    return polynomial[()] if len(polynomial) == 1 and () in polynomial else None


def add(left: Polynomial, right: Polynomial, *, scale: int = 1) -> Polynomial:
    """``left + scale * right``."""
    total = dict(left)
    for monomial, coefficient in right.items():
        total[monomial] = total.get(monomial, 0) + scale * coefficient
        if not total[monomial]:
            del total[monomial]
    return total


def multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """``left * right``.

    >>> multiply({(1,): 2}, {(0,): 3, (): 1})
    {(0, 1): 6, (1,): 2}
    """
    product: Polynomial = {}
    for a, x in left.items():
        for b, y in right.items():
            monomial = tuple(sorted(a + b)) if a and b else a or b
            product[monomial] = product.get(monomial, 0) + x * y
    return {monomial: value for monomial, value in product.items() if value}


def size_polynomial(dim: Dim, free: Mapping[int, Range], counts: Counts) -> Polynomial:
    """Size of a dimension over the axes in `free`; the others keep `counts` or all their units.

    >>> size_polynomial((Axis(0, 3), Axis(1, 4)), {1: (1, 4)}, {0: 2})
    {(1,): 2}
    """
    size: Polynomial = {(): 1}
    for factor in dim:
        part: Polynomial = {}
        if isinstance(factor, Axis):
            free_axis = factor.index in free
            number = 1 if free_axis else counts.get(factor.index, factor.size)
            part[(factor.index,) if free_axis else ()] = number
        else:
            for piece in factor.parts:
                for monomial, value in size_polynomial(piece, free, counts).items():
                    part[monomial] = part.get(monomial, 0) + value
        size = part if len(dim) == 1 else multiply(size, part)
    return size


def variables_of(polynomial: Polynomial) -> set[int]:
    """Every variable that occurs."""
    return {number for monomial in polynomial for number in monomial}


def substitute(polynomial: Polynomial, values: Mapping[int, Polynomial]) -> Polynomial:
    """The polynomial with variables replaced."""
    if not any(number in values for monomial in polynomial for number in monomial):
        return polynomial
    total: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        term = constant(coefficient)
        for number in monomial:
            term = multiply(term, values.get(number, {(number,): 1}))
        total = add(total, term)
    return total


def evaluate(polynomial: Polynomial, columns: Mapping[int, Any]) -> Any:
    """Value for these numbers or columns (int64 arrays of one length) of its variables."""
    total: Any = 0
    for monomial, coefficient in polynomial.items():
        term: Any = coefficient
        for number in monomial:
            term = term * columns[number]
        total = total + term
    return total


def split_linear(polynomial: Polynomial, number: int) -> tuple[Polynomial, Polynomial] | None:
    """``(a, b)`` with ``polynomial == a * number + b``, None where it is not of degree one.

    >>> split_linear({(0, 1): 2, (2,): -1}, 1)
    ({(0,): 2}, {(2,): -1})
    """
    slope: Polynomial = {}
    rest: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        if number not in monomial:
            rest[monomial] = coefficient
            continue
        others = tuple(other for other in monomial if other != number)
        if len(others) != len(monomial) - 1:
            return None
        slope[others] = coefficient
    return slope, rest


def divide_terms(polynomial: Polynomial, divisor: Polynomial) -> Polynomial | None:
    """Quotient by a single monomial that divides every term, None where there is none.

    >>> divide_terms({(0, 1): 4, (1,): 2}, {(1,): 2})
    {(0,): 2, (): 1}
    """
    if len(divisor) != 1:
        return None
    ((factors, number),) = divisor.items()
    quotient: Polynomial = {}
    for monomial, coefficient in polynomial.items():
        left = list(monomial)
        for factor in factors:
            if factor not in left:
                return None
            left.remove(factor)
        if coefficient % number:
            return None
        quotient[tuple(left)] = coefficient // number
    return quotient


def primitive(polynomial: Polynomial, positive: set[int] | None = None) -> Polynomial:
    """The polynomial without its common positive factor; `positive` variables divide out too.

    The sign of its value stays.

    >>> primitive({(0, 1): 4, (1, 2): -2}, {1})
    {(0,): 2, (2,): -1}
    """
    if not polynomial:
        return polynomial
    common = gcd(*polynomial.values())
    monomials = iter(polynomial)
    shared = [number for number in next(monomials) if positive and number in positive]
    for monomial in monomials:
        if not shared:
            break
        left = list(monomial)
        kept = []
        for number in shared:
            if number in left:
                left.remove(number)
                kept.append(number)
        shared = kept
    if common == 1 and not shared:
        return polynomial
    quotient = divide_terms(polynomial, {tuple(shared): common})
    assert quotient is not None
    return quotient


def bounds(polynomial: Polynomial, ranges: Mapping[int, Range]) -> Range:
    """An interval that holds every value, given the ranges of the variables."""
    low = high = 0
    for monomial, coefficient in polynomial.items():
        a = b = coefficient
        for number in monomial:
            corners = [x * y for x in (a, b) for y in ranges[number]]
            a, b = min(corners), max(corners)
        low, high = low + a, high + b
    return low, high
