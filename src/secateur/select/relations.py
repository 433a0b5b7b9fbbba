"""Relations in words, for notes and errors: what the model's code computes, and where.

A size is named by the groups that make it up, a field by its path, so that a user finds both in
the printed graph and in the source.
"""

from __future__ import annotations

from collections.abc import Mapping

from secateur.core.dims import Axis, Dim, dim_size
from secateur.core.expressions import Binary, Expression, Field, Relation, Size
from secateur.core.graph import Group

_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "floordiv": "//",
    "mod": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


def describe_relation(relation: Relation, groups: Mapping[int, Group]) -> str:
    """For example ``blocks.0.attn.dim // 12 == |blocks.0.attn.qkv:2| (vit.py:71)``.

    groups: by the index of their axis.
    """
    left, right = (_describe(side, groups) for side in (relation.left, relation.right))
    text = f"{left} {_SYMBOLS[relation.op]} {right}"
    text = text if relation.holds else f"not ({text})"
    return f"{text} ({relation.where})" if relation.where else text


def _describe(expression: Expression, groups: Mapping[int, Group]) -> str:
    if isinstance(expression, int):
        return str(expression)
    if isinstance(expression, Field):
        return str(expression)
    if isinstance(expression, Size):
        return _describe_dim(expression.dim, groups)
    assert isinstance(expression, Binary)
    sides = (expression.left, expression.right)
    left, right = (
        f"({_describe(side, groups)})" if isinstance(side, Binary) else _describe(side, groups)
        for side in sides
    )
    return f"{left} {_SYMBOLS[expression.op]} {right}"


def _describe_dim(dim: Dim, groups: Mapping[int, Group]) -> str:
    """A product of group names between bars, sums in brackets, the size for what has no group."""
    words = []
    for factor in dim:
        if isinstance(factor, Axis):
            group = groups.get(factor.index)
            words.append(f"|{group.id}|" if group is not None else str(factor.size))
            continue
        parts = [_describe_dim(part, groups) for part in factor.parts]
        if len(parts) > 4:  # a DenseNet input has dozens
            parts = [*parts[:2], f"... {len(parts) - 3} more of {dim_size(dim)} in all", parts[-1]]
        words.append(f"({' + '.join(parts)})")
    return " * ".join(words) or "1"
