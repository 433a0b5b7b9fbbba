"""From relations to constraints over the counts: fields are eliminated, exact quotients too.

A field that some relation equates with sizes is *defined*: it is replaced by their polynomial,
and a second definition becomes an equation between counts. ``a // b`` that had no remainder
becomes a variable q with ``q * b == a``, which the next equation usually eliminates again.
Fields that no equation ties to anything keep their value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from secateur.core.dims import Counts
from secateur.core.expressions import Binary, Expression, Field, Relation, Size, evaluate
from secateur.select._counts_constraints import Compare, Constraint, Divide, joined
from secateur.select._counts_polynomial import (
    Polynomial,
    Range,
    add,
    constant,
    constant_value,
    divide_terms,
    multiply,
    size_polynomial,
    split_linear,
    variable,
)

_NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
_OF_TWO = {"add": 1, "sub": -1}
Defined = tuple[Polynomial, tuple[int, ...]]


@dataclass
class System:
    """Constraints over numbered variables: axes by their index, the others by negative numbers.

    fields: variables that stand for fields without a definition. quotients: variables that stand
    for a division. solved: those that were eliminated. ranges: bounds of the
    counts; those of the others are found later.
    """

    ranges: dict[int, Range]
    old: Mapping[Field, int]
    counts: Counts
    constraints: list[Constraint] = field(default_factory=list)
    definitions: dict[Field, Defined] = field(default_factory=dict)
    fields: dict[Field, int] = field(default_factory=dict)
    quotients: dict[object, int] = field(default_factory=dict)
    solved: dict[int, Polynomial] = field(default_factory=dict)

    def fresh(self) -> int:
        """A number for a new variable."""
        return -1 - len(self.fields) - len(self.quotients)


def compile_relations(
    relations: Sequence[Relation],
    fields: Mapping[Field, int],
    ranges: Mapping[int, Range],
    *,
    counts: Counts | None = None,
    known: Mapping[Field, int] | None = None,
) -> System:
    """The constraints that `relations` put on the axes in `ranges` (and on undefined fields).

    fields: values before the cut. counts: of the axes that are not free. known: fields whose
    value after the cut is decided.
    """
    system = System(dict(ranges), fields, counts or {})
    system.definitions.update({key: (constant(value), ()) for key, value in (known or {}).items()})
    for position, relation in enumerate(relations):
        _define_directly(system, relation, position)
    for position, relation in enumerate(relations):
        if _direct(relation) is None:
            _compare(system, relation, position)
    _eliminate(system)
    return system


def _direct(relation: Relation) -> tuple[Field, Size | int] | None:
    """The field and its definition in ``field == size``, the commonest relation by far."""
    if (relation.op == "eq") is not relation.holds or relation.op not in ("eq", "ne"):
        return None
    left, right = relation.left, relation.right
    if isinstance(left, Field) and isinstance(right, (Size, int)):
        return left, right
    if isinstance(right, Field) and isinstance(left, (Size, int)):
        return right, left
    return None


def _define_directly(system: System, relation: Relation, position: int) -> None:
    direct = _direct(relation)
    if direct is None:
        return
    key, meaning = direct
    if isinstance(meaning, int):
        polynomial = constant(meaning)
    else:
        polynomial = size_polynomial(meaning.dim, system.ranges, system.counts)
    first = system.definitions.setdefault(key, (polynomial, (position,)))
    if first[0] != polynomial:
        difference = add(first[0], polynomial, scale=-1)
        system.constraints.append(Compare("eq", difference, joined(first[1], (position,))))


def _compare(system: System, relation: Relation, position: int) -> None:
    """One constraint for a relation of any other form."""
    left, s = _polynomial(system, relation.left, position)
    right, t = _polynomial(system, relation.right, position)
    op = relation.op if relation.holds else _NEGATED[relation.op]
    if op in ("lt", "le"):
        left, right, op = right, left, {"lt": "gt", "le": "ge"}[op]
    difference = add(left, right, scale=-1)
    if op == "gt":  # over integers x > 0 is x - 1 >= 0
        difference, op = add(difference, constant(-1)), "ge"
    system.constraints.append(Compare(op, difference, joined(s, t)))


def _polynomial(system: System, expression: Expression, position: int) -> Defined:
    """An expression over the variables, and the relations whose definitions it used."""
    if isinstance(expression, int):
        return constant(expression), (position,)
    if isinstance(expression, Size):
        return size_polynomial(expression.dim, system.ranges, system.counts), (position,)
    if isinstance(expression, Field):
        if expression in system.definitions:
            polynomial, sources = system.definitions[expression]
            return polynomial, joined((position,), sources)
        number = system.fields.setdefault(expression, system.fresh())
        return variable(number), (position,)
    left, s = _polynomial(system, expression.left, position)
    right, t = _polynomial(system, expression.right, position)
    sources = joined(s, t)
    if expression.op in _OF_TWO:
        return add(left, right, scale=_OF_TWO[expression.op]), sources
    if expression.op == "mul":
        return multiply(left, right), sources
    return _division(system, expression, Divide(expression.op, {}, left, right, sources)), sources


def _division(system: System, expression: Binary, division: Divide) -> Polynomial:
    """Quotient or remainder; a quotient that was exact before the cut must stay exact."""
    left, right = division.left, division.right
    quotient = divide_terms(left, right)
    if quotient is not None:
        return quotient if division.op == "floordiv" else {}
    a, b = constant_value(left), constant_value(right)
    if a is not None and b:
        return constant(a // b if division.op == "floordiv" else a % b)
    key = (division.op, frozenset(left.items()), frozenset(right.items()))
    if key in system.quotients:
        return variable(system.quotients[key])
    number = system.quotients[key] = system.fresh()
    if division.op == "floordiv" and _was_exact(system, expression):
        product = add(multiply(variable(number), right), left, scale=-1)
        system.constraints.append(Compare("eq", product, division.sources))
    else:
        system.constraints.append(replace(division, out=variable(number)))
    return variable(number)


def _was_exact(system: System, expression: Binary) -> bool:
    remainder = evaluate(Binary("mod", expression.left, expression.right), {}, system.old)
    return remainder in (0, None)


def _eliminate(system: System) -> None:
    """Replace every field and quotient that an equation gives as a polynomial of the rest."""
    constraints = dict(enumerate(system.constraints))
    fields = set(system.fields.values())
    extra = fields | set(system.quotients.values())
    users: dict[int, set[int]] = {}
    for position, constraint in constraints.items():
        for number in constraint.variables() & extra:
            users.setdefault(number, set()).add(position)
    queue = list(constraints)
    for position in queue:  # grows while it is read
        found = _defining(constraints.get(position), extra, fields)
        if found is None:
            continue
        number, value = found
        definition = constraints.pop(position)
        system.solved[number] = value
        extra.discard(number)
        for other in sorted(users.pop(number)):
            user = constraints.get(other)
            if user is None or number not in user.variables():
                continue
            constraints[other] = changed = user.substituted({number: value}).because(definition)
            queue.append(other)
            for left in changed.variables() & extra:
                users.setdefault(left, set()).add(other)
    system.constraints = list(constraints.values())
    _keep_unequated(system, extra)


def _defining(
    constraint: Constraint | None, extra: set[int], fields: set[int]
) -> tuple[int, Polynomial] | None:
    """A variable of `extra` that this equation gives without a division, and its value.

    A field must be the only unknown: of two, each may have to change.
    """
    if not isinstance(constraint, Compare) or constraint.op != "eq":
        return None
    unknown = constraint.variables() & extra
    for number in sorted(unknown, reverse=True):
        if number in fields and len(unknown) > 1:
            continue
        split = split_linear(constraint.polynomial, number)
        slope = constant_value(split[0]) if split is not None else None
        if split is not None and slope in (1, -1):
            return number, {key: -slope * value for key, value in split[1].items()}
    return None


def _keep_unequated(system: System, extra: set[int]) -> None:
    """A field that only inequalities mention is not defined by anything: it keeps its value."""
    equated: set[int] = set()
    for constraint in system.constraints:
        if not isinstance(constraint, Compare) or constraint.op == "eq":
            equated |= constraint.variables()
    values = {
        number: constant(system.old[key])
        for key, number in system.fields.items()
        if number in extra and number not in equated and key in system.old
    }
    system.constraints = [constraint.substituted(values) for constraint in system.constraints]
