"""What a configuration can express, as relations for the count solver.

Each tensor dimension of the graph is set equal to its expression in the configuration's integers.
A product is taken apart where the dimension is one too: ``num_heads * head_dim`` over (heads,
head_dim) says what each of them is, which equal shapes alone would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from secateur.core.dims import Concat, Dim, dim_size
from secateur.core.expressions import (
    Binary,
    Expression,
    Field,
    Relation,
    Size,
    evaluate,
    leaves,
)
from secateur.core.graph import Graph
from secateur.storage.config_shapes import ConfigShapes

Equation = tuple[Expression, Dim, str]
"""An expression, the dimension whose size it is, and the tensor where that was seen."""


def relations(shapes: ConfigShapes, graph: Graph) -> tuple[tuple[Relation, ...], dict[Field, int]]:
    """Relations that keep a cut expressible, and the fields that occur in them with their values.

    A dimension that no field decides keeps its size. Fields that decide no tensor are numbers.
    """
    found: dict[Relation, None] = {}
    for expression, dim, tensor in equations(shapes, {n: t.dims for n, t in graph.tensors.items()}):
        if isinstance(expression, int) and not dim:
            continue
        where = f"the configuration, for {tensor}"
        found.setdefault(Relation("eq", expression, Size(dim), True, where))
    for field, expression in shapes.attributes.items():
        if field in graph.fields:  # what the forward reads must be what the constructor computes
            found.setdefault(Relation("eq", expression, field, True, f"the configuration, {field}"))
    deciding = {
        leaf for relation in found for leaf in leaves(relation.left) if isinstance(leaf, Field)
    }
    for condition in (*shapes.conditions, *shapes.scales):
        touched = set(chain(leaves(condition.left), leaves(condition.right)))
        if touched & deciding:
            left, right = (
                _only(side, deciding, shapes.fields) for side in (condition.left, condition.right)
            )
            found.setdefault(Relation(condition.op, left, right, condition.holds, condition.where))
    unique = {(r.op, r.left, r.right, r.holds): r for r in reversed(found)}
    ordered = tuple(reversed(unique.values()))
    return ordered, {field: v for field, v in shapes.fields.items() if field in deciding}


def equations(shapes: ConfigShapes, dims: Mapping[str, tuple[Dim, ...]]) -> Iterator[Equation]:
    """Expression and dimension of every tensor dimension in `dims`, products taken apart."""
    for name, tensor_dims in dims.items():
        expressions = shapes.tensors.get(name)
        if expressions is None or len(expressions) != len(tensor_dims):
            continue
        for expression, dim in zip(expressions, tensor_dims, strict=True):
            for part, part_dim in _apart(expression, dim, shapes.fields):
                yield part, part_dim, name


def _apart(
    expression: Expression, dim: Dim, fields: Mapping[Field, int]
) -> Iterator[tuple[Expression, Dim]]:
    pairs = None
    if isinstance(expression, Binary) and expression.op in ("mul", "add"):
        sides = (expression.left, expression.right)
        left, right = (evaluate(side, {}, fields) for side in sides)
        if left is not None and right is not None:
            split = _split_product if expression.op == "mul" else _split_concat
            pairs = split(sides, (left, right), dim)
    if pairs is None:
        yield expression, dim
        return
    for part, part_dim in pairs:
        yield from _apart(part, part_dim, fields)


def _split_product(
    sides: tuple[Expression, Expression], sizes: tuple[int, int], dim: Dim
) -> list[tuple[Expression, Dim]] | None:
    """Which factors of `dim` each side of a product stands for; None where that is not certain.

    A count times a side may also be that many equal pieces of a concatenation.
    """
    left, right = sides
    if len(dim) == 1 and isinstance(dim[0], Concat):
        for count, side, size in ((left, right, sizes[1]), (right, left, sizes[0])):
            parts = dim[0].parts
            if count == len(parts) and all(dim_size(part) == size for part in parts):
                return [(side, part) for part in parts]
        return None
    fits = []
    for k in range(1, len(dim)):
        outer, inner = dim[:k], dim[k:]
        measured = (dim_size(outer), dim_size(inner))
        if measured == sizes:
            fits.append([(left, outer), (right, inner)])
        if measured == sizes[::-1]:
            fits.append([(right, outer), (left, inner)])
    return fits[0] if len(fits) == 1 else None


def _split_concat(
    sides: tuple[Expression, Expression], sizes: tuple[int, int], dim: Dim
) -> list[tuple[Expression, Dim]] | None:
    """Which pieces of a concatenation each side of a sum stands for."""
    if len(dim) != 1 or not isinstance(dim[0], Concat):
        return None
    parts = dim[0].parts
    for k in range(1, len(parts)):
        head, tail = _joined(parts[:k]), _joined(parts[k:])
        if (dim_size(head), dim_size(tail)) == sizes:
            return [(sides[0], head), (sides[1], tail)]
    return None


def _joined(parts: tuple[Dim, ...]) -> Dim:
    return parts[0] if len(parts) == 1 else (Concat(parts),)


def _only(expression: Expression, kept: set[Field], fields: Mapping[Field, int]) -> Expression:
    """The expression with every other field replaced by its value."""
    if isinstance(expression, Field) and expression not in kept:
        return fields[expression]
    if isinstance(expression, Binary):
        return Binary(
            expression.op,
            _only(expression.left, kept, fields),
            _only(expression.right, kept, fields),
        )
    return expression
