"""New values of the model's integer attributes after a cut.

Most are defined outright (``in_features`` is the size of an axis); the rest follow by inverting
the one unknown of an equation, and where an equation has several unknowns each keeps its value if
it can. `cut/` writes what this returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.core.dims import Counts, new_size
from secateur.core.errors import CutError
from secateur.core.expressions import (
    COMPARISONS,
    Binary,
    Expression,
    Field,
    Fields,
    Relation,
    Size,
    evaluate,
    leaves,
)
from secateur.select._counts_compile import compile_relations
from secateur.select._counts_constraints import Unsatisfiable
from secateur.select._counts_goals import Goal
from secateur.select._counts_polynomial import constant_value
from secateur.select._counts_ranges import bound_variables
from secateur.select._counts_solve import solve


def solve_fields(relations: Sequence[Relation], fields: Fields, counts: Counts) -> dict[Field, int]:
    """The value of every field when each axis keeps `counts` units (absent: all).

    fields: values before the cut; a field that no relation defines keeps its own.

    Raises: CutError naming the relation, or the two definitions, that these counts break.
    """
    known: dict[Field, int] = {}
    reasons: dict[Field, Relation] = {}
    pending = []
    for relation in relations:
        found = _definition(relation, counts)
        if found is None:
            pending.append(relation)
            continue
        field, value = found
        if known.setdefault(field, value) != value:
            raise _conflict(field, (known[field], reasons[field]), (value, relation))
        reasons.setdefault(field, relation)
    open_ = _propagate(pending, fields, counts, known)
    known |= _settle(open_, fields, counts, known)
    solved = {**fields, **known}
    for relation in pending:
        left = evaluate(relation.left, counts, solved)
        right = evaluate(relation.right, counts, solved)
        if left is None or right is None:
            continue
        if COMPARISONS[relation.op](left, right) is not relation.holds:
            raise CutError(
                f"{_text(relation)} is no longer {relation.holds}: {left} against {right} after "
                "the cut; let solve_counts choose the counts"
            )
    return solved


def _is_equation(relation: Relation) -> bool:
    return relation.op == ("eq" if relation.holds else "ne")


def _definition(relation: Relation, counts: Counts) -> tuple[Field, int] | None:
    """Field and value of a relation ``field == size``."""
    left, right = relation.left, relation.right
    if not isinstance(left, Field):
        left, right = right, left
    if isinstance(left, Field) and isinstance(right, (Size, int)) and _is_equation(relation):
        return left, right if isinstance(right, int) else new_size(right.dim, counts)
    return None


def _propagate(
    relations: Sequence[Relation], old: Fields, counts: Counts, known: dict[Field, int]
) -> list[Relation]:
    """Invert equations with one unknown until none is left; returns the undecided ones."""
    pending = [relation for relation in relations if _is_equation(relation)]
    while True:
        undecided = []
        for relation in pending:
            unknown = [
                leaf
                for side in (relation.left, relation.right)
                for leaf in leaves(side)
                if isinstance(leaf, Field) and leaf not in known
            ]
            if not unknown:
                continue
            value = _solve_single(relation, old, counts, known) if len(unknown) == 1 else None
            if value is None:
                undecided.append(relation)
            else:
                known[unknown[0]] = value
        if len(undecided) == len(pending):
            return undecided
        pending = undecided


def _solve_single(relation: Relation, old: Fields, counts: Counts, known: Fields) -> int | None:
    """Value of the one unknown field of an equation, None where it is not determined."""
    unknown, target = relation.left, evaluate(relation.right, counts, known)
    if target is None:
        unknown, target = relation.right, evaluate(relation.left, counts, known)
    while isinstance(unknown, Binary) and target is not None:
        left = evaluate(unknown.left, counts, known)
        right = evaluate(unknown.right, counts, known)
        if left is None:
            target = _left_of(unknown, target, right, old)
            unknown = unknown.left
        else:
            target = _right_of(unknown, target, left, old)
            unknown = unknown.right
    return target


def _left_of(binary: Binary, target: int, right: int | None, old: Fields) -> int | None:
    """x in ``x op right == target``."""
    if right is None:
        return None
    if binary.op == "mul":
        return target // right if right and target % right == 0 else None
    if binary.op == "floordiv":
        return target * right if _was_exact(binary, old) else None
    return {"add": target - right, "sub": target + right}.get(binary.op)


def _right_of(binary: Binary, target: int, left: int, old: Fields) -> int | None:
    """x in ``left op x == target``."""
    if binary.op == "mul":
        return target // left if left and target % left == 0 else None
    if binary.op == "floordiv":
        exact = target and left % target == 0 and _was_exact(binary, old)
        return left // target if exact else None
    return {"add": target - left, "sub": left - target}.get(binary.op)


def _was_exact(binary: Binary, old: Fields) -> bool:
    return evaluate(Binary("mod", binary.left, binary.right), {}, old) in (0, None)


def _settle(
    relations: Sequence[Relation], old: Fields, counts: Counts, known: Fields
) -> dict[Field, int]:
    """Fields of equations with several unknowns: the least change that makes all true."""
    if not relations:
        return {}
    system = compile_relations(relations, old, {}, counts=counts, known=known)
    bound_variables(system)
    goals = {
        number: Goal(max(abs(old[field]), 1), old[field])
        for field, number in system.fields.items()
        if field in old and number in system.ranges
    }
    try:
        values = solve(system.constraints, system.ranges, goals)
    except Unsatisfiable as conflict:
        names = " and ".join(_text(relations[n]) for n in conflict.sources[:3])
        raise CutError(
            f"no values of the model's attributes make {names} true after the cut; let "
            "solve_counts choose the counts"
        ) from None
    settled = {}
    for field, number in system.fields.items():
        if number in goals:
            settled[field] = values[number]
        elif number in system.solved:
            value = constant_value(system.solved[number])
            settled |= {} if value is None else {field: value}
    return settled


def _conflict(field: Field, first: tuple[int, Relation], second: tuple[int, Relation]) -> CutError:
    return CutError(
        f"attribute {field} would have to be {first[0]} by {_text(first[1])} and {second[0]} by "
        f"{_text(second[1])}; let solve_counts choose the counts"
    )


def _text(relation: Relation) -> str:
    """A relation without a graph to name its groups: fields by path, sizes by their value."""

    def side(expression: Expression) -> str:
        if isinstance(expression, Binary):
            return f"{expression.op}({side(expression.left)}, {side(expression.right)})"
        if isinstance(expression, Size):
            return f"size {new_size(expression.dim, {})}"
        return str(expression)

    where = f" ({relation.where})" if relation.where else ""
    return f"{side(relation.left)} {relation.op} {side(relation.right)}{where}"
