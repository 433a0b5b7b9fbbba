"""Small systems of relations for the count solver's tests: a graph with nothing else in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.core.dims import Axis
from secateur.core.expressions import Binary, Expression, Field, Relation
from secateur.core.graph import Graph, Group


def make_graph(
    axes: Sequence[Axis],
    relations: Sequence[Relation],
    fields: Mapping[Field, int] | None = None,
    pinned: Sequence[Axis] = (),
) -> Graph:
    groups = tuple(
        Group(f"g{axis.index}", axis, (), pinned="model output" if axis in pinned else None)
        for axis in axes
    )
    return Graph(groups, {}, (), (), tuple(relations), fields or {}, (), (), {}, "fingerprint")


def equal(left: Expression, right: Expression, where: str = "") -> Relation:
    return Relation("eq", left, right, True, where)


def op(name: str, left: Expression, right: Expression) -> Binary:
    return Binary(name, left, right)
