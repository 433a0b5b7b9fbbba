"""Equal and proportional counts become one variable; constraints are brought to their core.

``2 * a == 3 * b`` leaves one variable t with ``a = 3t, b = 2t``; ``h * d == h * e`` leaves
``d == e``, because counts are positive. Tautologies and repetitions go. What is left is small:
most systems of real models are chains of equalities and end here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd

from secateur.select._counts_constraints import Compare, Constraint, Unsatisfiable, joined
from secateur.select._counts_polynomial import (
    Polynomial,
    Range,
    constant,
    primitive,
)


@dataclass
class Merged:
    """Roots and what hangs on them.

    members: root -> {variable: factor}, each variable is factor times its root. values: what each
    variable that is no root stands for. sources: the relations that merged into a root.
    """

    ranges: dict[int, Range]
    members: dict[int, dict[int, int]] = field(default_factory=dict)
    values: dict[int, Polynomial] = field(default_factory=dict)
    sources: dict[int, tuple[int, ...]] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)

    def positive(self, number: int) -> bool:
        """Whether a variable is at least one."""
        return self.ranges[number][0] >= 1


def merge(constraints: Sequence[Constraint], ranges: Mapping[int, Range]) -> Merged:
    """Merge until nothing changes. Raises: Unsatisfiable."""
    merged = Merged(dict(ranges))
    for number, (low, high) in ranges.items():
        if low == high:
            merged.values[number] = constant(low)
            merged.members[number] = {number: 1}
    pending = list(constraints)
    changed = True
    while changed:
        changed = False
        left: list[Constraint] = []
        for constraint in pending:
            simple = _simplified(merged, constraint)
            if simple is None:
                continue
            if isinstance(simple, Compare) and simple.op == "eq" and _absorb(merged, simple):
                changed = True
            else:
                left.append(simple)
        pending = left
    merged.constraints = _distinct(pending)
    return merged


def _simplified(merged: Merged, constraint: Constraint) -> Constraint | None:
    """The constraint over roots without common factors, None where it is always true."""
    constraint = constraint.substituted(merged.values)
    if isinstance(constraint, Compare):
        positive = {number for number in constraint.variables() if merged.positive(number)}
        polynomial = primitive(constraint.polynomial, positive)
        if polynomial is not constraint.polynomial:
            constraint = replace(constraint, polynomial=polynomial)
    # a positive factor may have been all that varied: `8 * heads > 0`
    if constraint.variables():
        return constraint
    if not constraint.holds({}):
        raise Unsatisfiable(constraint.sources)
    return None


def _absorb(merged: Merged, constraint: Compare) -> bool:
    """Turn ``a * x == b * y`` or ``a * x == b`` into a substitution, if it is one of these."""
    polynomial = constraint.polynomial
    if len(polynomial) > 2:
        return False
    monomials = sorted(polynomial, key=len)
    if any(len(monomial) > 1 for monomial in monomials):
        return False
    (*first, second) = monomials
    if not first or first == [()]:
        _fix(merged, second[0], -polynomial.get((), 0), polynomial[second], constraint.sources)
        return True
    x, y = first[0][0], second[0]
    a, b = polynomial[first[0]], -polynomial[second]
    if a * b < 0 and not (merged.positive(x) and merged.positive(y)):
        return False  # both zero: rare, left to the search
    if a * b < 0:
        raise Unsatisfiable(constraint.sources)
    _join(merged, (x, abs(a)), (y, abs(b)), constraint.sources)
    return True


def _fix(merged: Merged, number: int, value: int, slope: int, sources: tuple[int, ...]) -> None:
    low, high = merged.ranges[number]
    if value % slope or not low <= value // slope <= high:
        raise Unsatisfiable(joined(sources, merged.sources.get(number, ())))
    _set_range(merged, number, (value // slope, value // slope), sources)


def _set_range(merged: Merged, root: int, interval: Range, sources: tuple[int, ...]) -> None:
    if interval[0] > interval[1]:
        raise Unsatisfiable(sources)
    merged.ranges[root] = interval
    merged.members.setdefault(root, {root: 1})
    if interval[0] == interval[1]:
        for member, factor in merged.members[root].items():
            merged.values[member] = constant(factor * interval[0])


def _join(
    merged: Merged, left: tuple[int, int], right: tuple[int, int], sources: tuple[int, ...]
) -> None:
    """Make one root t of x and y where ``a * x == b * y``: ``x = b' t`` and ``y = a' t``."""
    (x, a), (y, b) = left, right
    common = gcd(a, b)
    factors = {x: b // common, y: a // common}
    root = next((number for number in (x, y) if factors[number] == 1), None)
    if root is None:
        root = min(*merged.ranges, 0) - 1
    ranges = [merged.ranges[number] for number in (x, y)]
    low = max(-(-r[0] // f) for r, f in zip(ranges, factors.values(), strict=True))
    high = min(r[1] // f for r, f in zip(ranges, factors.values(), strict=True))
    members: dict[int, int] = {}
    for number, factor in factors.items():
        for member, inner in merged.members.pop(number, {number: 1}).items():
            members[member] = inner * factor
        sources = joined(sources, merged.sources.pop(number, ()))
    merged.members[root], merged.sources[root] = members, sources
    for member, factor in members.items():
        if member != root:
            merged.values[member] = {(root,): factor}
    _set_range(merged, root, (low, high), sources)


def _distinct(constraints: Sequence[Constraint]) -> list[Constraint]:
    seen: dict[object, Constraint] = {}
    for constraint in constraints:
        if isinstance(constraint, Compare):
            key: object = (constraint.op, frozenset(constraint.polynomial.items()))
            if constraint.op == "eq":
                negated = {k: -v for k, v in constraint.polynomial.items()}
                key = frozenset((key, (constraint.op, frozenset(negated.items()))))
        else:
            parts = (constraint.out, constraint.left, constraint.right)
            key = (constraint.op, *(frozenset(part.items()) for part in parts))
        seen.setdefault(key, constraint)
    return list(seen.values())
