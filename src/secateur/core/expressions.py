"""Integer expressions that a model's own Python code computes with, and relations between them.

`embed_dim // num_heads` is ``Binary("floordiv", Field("attn", "embed_dim"), Field("attn",
"num_heads"))``. A `Relation` says that such an expression equals (or compares in another way
with) another one. Relations are what the count solver must keep true, and what tells which
attributes to rewrite after a cut.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.core.dims import Counts, Dim, dim_from_json, dim_to_json, new_size

OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
}
COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a dimension."""

    dim: Dim


@dataclass(frozen=True, slots=True)
class Field:
    """An integer attribute: ``owner`` is a module's path, ``name`` may be dotted ("config.width"),
    ``index`` selects an element of a tuple or list attribute."""

    owner: str
    name: str
    index: int | None = None

    def __str__(self) -> str:
        path = f"{self.owner}.{self.name}" if self.owner else self.name
        return path if self.index is None else f"{path}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Binary:
    """``op`` of two expressions; ``op`` is a key of `OPERATORS`."""

    op: str
    left: Expression
    right: Expression


Expression = int | Size | Field | Binary
Fields = Mapping[Field, int]


@dataclass(frozen=True, slots=True)
class Relation:
    """``left op right`` came out as ``holds`` in the trace and must stay so; ``where`` names the
    code."""

    op: str
    left: Expression
    right: Expression
    holds: bool = True
    where: str = ""


def evaluate(expression: Expression, counts: Counts, fields: Fields) -> int | None:
    """Value of an expression for these unit counts; None where a field or a division is undefined.

    >>> evaluate(Binary("floordiv", Field("attn", "width"), 4), {}, {Field("attn", "width"): 64})
    16
    """
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Size):
        return new_size(expression.dim, counts)
    if isinstance(expression, Field):
        return fields.get(expression)
    left = evaluate(expression.left, counts, fields)
    right = evaluate(expression.right, counts, fields)
    if left is None or right is None or (expression.op in ("floordiv", "mod") and right == 0):
        return None
    return OPERATORS[expression.op](left, right)


def leaves(expression: Expression) -> Iterator[Size | Field]:
    """Every size and field of an expression."""
    if isinstance(expression, (Size, Field)):
        yield expression
    elif isinstance(expression, Binary):
        yield from leaves(expression.left)
        yield from leaves(expression.right)


def expression_to_json(expression: Expression) -> Any:
    """An expression as JSON."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Size):
        return {"size": dim_to_json(expression.dim)}
    if isinstance(expression, Field):
        return {"field": [expression.owner, expression.name, expression.index]}
    return {
        expression.op: [expression_to_json(expression.left), expression_to_json(expression.right)]
    }


def expression_from_json(value: Any) -> Expression:
    """Inverse of `expression_to_json`."""
    if isinstance(value, int):
        return value
    ((key, body),) = value.items()
    if key == "size":
        return Size(dim_from_json(body))
    if key == "field":
        return Field(*body)
    return Binary(key, expression_from_json(body[0]), expression_from_json(body[1]))
