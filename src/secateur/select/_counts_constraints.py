"""The count solver's constraints: a polynomial compared with zero, or an integer division.

Constraints are values; `sources` are the positions of the relations that they came from, so that
a refusal or a changed count can name them. Everything works on numbers and on columns (int64
arrays of one length) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from secateur.select._counts_polynomial import (
    Polynomial,
    evaluate,
    split_linear,
    substitute,
    variables_of,
)

_COMPARE: Mapping[str, Callable[[Any], Any]] = {
    "eq": lambda value: value == 0,
    "ne": lambda value: value != 0,
    "ge": lambda value: value >= 0,
}


class Unsatisfiable(Exception):
    """No assignment exists; `sources` are the relations that cannot hold together."""

    def __init__(self, sources: tuple[int, ...]) -> None:
        super().__init__(sources)
        self.sources = sources


@dataclass(frozen=True, slots=True)
class Compare:
    """``polynomial op 0``, op one of eq, ne, ge."""

    op: str
    polynomial: Polynomial
    sources: tuple[int, ...]

    def variables(self) -> set[int]:
        """Every variable that occurs."""
        return variables_of(self.polynomial)

    def substituted(self, values: Mapping[int, Polynomial]) -> Compare:
        """The same constraint with variables replaced."""
        polynomial = substitute(self.polynomial, values)
        return self if polynomial is self.polynomial else replace(self, polynomial=polynomial)

    def because(self, other: Constraint) -> Compare:
        """The same constraint, which also rests on the sources of another."""
        return replace(self, sources=joined(self.sources, other.sources))

    def holds(self, columns: Mapping[int, Any]) -> Any:
        """Whether it is true, for numbers or row by row."""
        return _COMPARE[self.op](evaluate(self.polynomial, columns))

    def determines(self, number: int, positive: Callable[[int], bool]) -> bool:
        """Whether the other variables leave at most one value for `number`."""
        split = split_linear(self.polynomial, number) if self.op == "eq" else None
        # one monomial of positive variables is never zero, so the division is always defined
        return split is not None and len(split[0]) == 1 and all(map(positive, *split[0]))

    def solve(self, number: int, columns: Mapping[int, Any]) -> tuple[Any, Any]:
        """Value of `number` row by row, and whether that value is a whole number."""
        split = split_linear(self.polynomial, number)
        assert split is not None
        slope, rest = evaluate(split[0], columns), -evaluate(split[1], columns)
        if isinstance(slope, int) and slope in (1, -1):  # several times faster than a division
            return slope * rest, True
        return np.floor_divide(rest, slope), np.mod(rest, slope) == 0


@dataclass(frozen=True, slots=True)
class Divide:
    """``out == left // right`` or ``out == left % right``, op one of floordiv, mod."""

    op: str
    out: Polynomial
    left: Polynomial
    right: Polynomial
    sources: tuple[int, ...]

    def variables(self) -> set[int]:
        """Every variable that occurs."""
        return variables_of(self.out) | variables_of(self.left) | variables_of(self.right)

    def substituted(self, values: Mapping[int, Polynomial]) -> Divide:
        """The same constraint with variables replaced."""
        out, left, right = (substitute(p, values) for p in (self.out, self.left, self.right))
        return replace(self, out=out, left=left, right=right)

    def because(self, other: Constraint) -> Divide:
        """The same constraint, which also rests on the sources of another."""
        return replace(self, sources=joined(self.sources, other.sources))

    def holds(self, columns: Mapping[int, Any]) -> Any:
        """Whether it is true, for numbers or row by row; a division by zero is not."""
        value, defined = self._value(columns)
        return defined & (value == evaluate(self.out, columns))

    def determines(self, number: int, positive: Callable[[int], bool]) -> bool:
        """Whether the other variables leave at most one value for `number`."""
        inner = variables_of(self.left) | variables_of(self.right)
        return self.out == {(number,): 1} and number not in inner

    def solve(self, number: int, columns: Mapping[int, Any]) -> tuple[Any, Any]:
        """Value of `number` row by row, and whether the division is defined."""
        return self._value(columns)

    def _value(self, columns: Mapping[int, Any]) -> tuple[Any, Any]:
        divide = np.floor_divide if self.op == "floordiv" else np.mod
        right = np.asarray(evaluate(self.right, columns))
        value = divide(evaluate(self.left, columns), np.where(right == 0, 1, right))
        return value, right != 0


Constraint = Compare | Divide


def joined(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Sources of a constraint made of two others, each once."""
    return first if first == second else tuple(dict.fromkeys(first + second))
