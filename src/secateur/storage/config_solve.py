"""Find the configuration values that give a cut model's sizes, or say which sizes contradict.

Every equation is ``expression == size``. Fields with only one possible value are set first; what
is then still open is searched, fewest unknowns first. A cut only makes fields smaller, so there
are finitely many values, and the dense value is preferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from secateur.core.expressions import COMPARISONS, Expression, Field, Relation, evaluate, leaves
from secateur.storage.config_shapes import show

_MOST_PAIRS = 4_000_000


@dataclass(frozen=True, slots=True)
class Demand:
    """`expression` must be `size`, because of `tensor`."""

    expression: Expression
    size: int
    tensor: str


@dataclass(frozen=True)
class Solution:
    """values: of every field, changed or not. conflicts: what cannot be, in words; empty when the
    configuration expresses the cut."""

    values: Mapping[Field, int]
    conflicts: tuple[str, ...]


def solve(
    demands: Sequence[Demand], conditions: Sequence[Relation], dense: Mapping[Field, int]
) -> Solution:
    """Values for the fields that satisfy all demands and conditions, or the conflicts."""
    unique = list({(demand.expression, demand.size): demand for demand in demands}.values())
    for values in _search(unique, {}, dense):
        complete = {**dense, **values}
        if all(_holds(condition, complete) for condition in conditions):
            return Solution(complete, ())
    known = {**dense, **_propagate(unique, {}, dense, stop_at_conflict=False)[0]}
    return Solution(known, tuple(_conflicts(unique, conditions, known)))


def _search(
    demands: Sequence[Demand], values: dict[Field, int], dense: Mapping[Field, int]
) -> Iterator[dict[Field, int]]:
    values, consistent = _propagate(demands, values, dense)
    if not consistent:
        return
    open_demands = [demand for demand in demands if _unknown(demand.expression, values)]
    if not open_demands:
        yield values
        return
    demand = min(open_demands, key=lambda demand: _search_size(demand, values, dense))
    if _search_size(demand, values, dense) > _MOST_PAIRS:
        return
    field = min(_unknown(demand.expression, values), key=lambda field: dense[field])
    for value in range(dense[field], 0, -1):
        yield from _search(demands, {**values, field: value}, dense)


def _propagate(
    demands: Sequence[Demand],
    values: dict[Field, int],
    dense: Mapping[Field, int],
    *,
    stop_at_conflict: bool = True,
) -> tuple[dict[Field, int], bool]:
    """Set every field that has only one possible value, until nothing changes."""
    values = dict(values)
    changed = True
    while changed:
        changed = False
        for demand in demands:
            unknown = _unknown(demand.expression, values)
            if len(unknown) > 1:
                continue
            if not unknown:
                if stop_at_conflict and evaluate(demand.expression, {}, values) != demand.size:
                    return values, False
                continue
            (field,) = unknown
            possible = _possible(demand, field, values, dense[field])
            if not possible and stop_at_conflict:
                return values, False
            if len(possible) == 1:
                values[field] = possible[0]
                changed = True
    return values, True


def _possible(demand: Demand, field: Field, values: Mapping[Field, int], largest: int) -> list[int]:
    if demand.expression == field:
        return [demand.size] if demand.size <= largest else []
    return [
        value
        for value in range(largest, 0, -1)
        if evaluate(demand.expression, {}, {**values, field: value}) == demand.size
    ]


def _unknown(expression: Expression, values: Mapping[Field, int]) -> list[Field]:
    found = dict.fromkeys(leaf for leaf in leaves(expression) if isinstance(leaf, Field))
    return [field for field in found if field not in values]


def _search_size(demand: Demand, values: Mapping[Field, int], dense: Mapping[Field, int]) -> int:
    size = 1
    for field in _unknown(demand.expression, values):
        size *= dense[field]
    return size


def _holds(condition: Relation, values: Mapping[Field, int]) -> bool:
    left = evaluate(condition.left, {}, values)
    right = evaluate(condition.right, {}, values)
    if left is None or right is None:
        return False
    return COMPARISONS[condition.op](left, right) == condition.holds


def _conflicts(
    demands: Sequence[Demand], conditions: Sequence[Relation], values: Mapping[Field, int]
) -> Iterator[str]:
    for demand in demands:
        found = evaluate(demand.expression, {}, values)
        if found != demand.size:
            yield f"{demand.tensor} needs {show(demand.expression)} = {demand.size}, not {found}"
    for condition in conditions:
        if not _holds(condition, values):
            sign = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
            said = f"{show(condition.left)} {sign[condition.op]} {show(condition.right)}"
            yield f"{said} must stay {condition.holds} ({condition.where})"
