"""Groups in the model's own words: what a unit is, what goes with it, how much of the model it is.

An axis is named by the attribute that is known to be its size (`blocks.3.attn.num_heads`), or else
by the layer that makes it. Nothing is looked up by architecture: the names are those that the
model's author gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from secateur.core.dims import Axis, Concat, Dim, axes_of, dim_size
from secateur.core.expressions import Field, Size
from secateur.core.graph import Graph, Group
from secateur.cost.counted import CostModel
from secateur.report.members import compact_members, compact_names

_LAYER_WORDS = {
    "out_features": "outputs",
    "out_channels": "channels",
    "embedding_dim": "width",
    "hidden_size": "width",
    "num_features": "channels",
    "num_channels": "channels",
    "num_parameters": "channels",
    "normalized_shape": "width",
    "in_features": "inputs",
    "in_channels": "inputs",
    "num_embeddings": "entries",
}
"""Sizes that torch's own layers keep, with a word for what they count."""
_MAKERS = ("out_features", "out_channels", "embedding_dim")


@dataclass(frozen=True, slots=True)
class Description:
    """One group for a reader.

    name: in the model's own words. unit: indices that one unit takes in the first of its tensors.
    members: its tensors, written short. params_share, macs_share: what of the model would go with
    all of its units, 0 to 1. cut: "exact", or why removing differs from zeroing.
    """

    id: str
    name: str
    units: int
    unit: int
    members: tuple[str, ...]
    params_share: float
    macs_share: float
    cut: str
    structural: bool
    pinned: str | None

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Alike:
    """Groups that differ in a layer's number only, as one line; shares are those of all."""

    name: str
    groups: tuple[Description, ...]

    @property
    def params_share(self) -> float:
        """Share of the model's parameters, all groups together."""
        return sum(group.params_share for group in self.groups)

    @property
    def macs_share(self) -> float:
        """Share of the model's multiply-accumulates, all groups together."""
        return sum(group.macs_share for group in self.groups)


def describe(graph: Graph) -> tuple[Description, ...]:
    """Every group of a graph, in its order."""
    costs, names = CostModel(graph), _names(graph)
    dense = costs.cost({})
    found = []
    for group in graph.groups:
        without = costs.cost({group.axis.index: 0})
        found.append(
            Description(
                id=group.id,
                name=names[group.axis],
                units=group.size,
                unit=_unit(group, graph),
                members=compact_members(group.members),
                params_share=1 - without.params / max(dense.params, 1),
                macs_share=1 - without.macs / max(dense.macs, 1),
                cut="exact" if group.exact else "; ".join(group.notes),
                structural=group.structural,
                pinned=group.pinned,
            )
        )
    return tuple(found)


def alike(described: Iterable[Description]) -> tuple[Alike, ...]:
    """Descriptions with those that differ only in the numbers of their names on one line."""
    families: dict[tuple[object, ...], list[Description]] = {}
    for one in described:
        kind = one.cut.partition(":")[0]
        key = (_without_numbers(one.name), one.units, one.unit, kind, one.structural, one.pinned)
        families.setdefault(key, []).append(one)
    return tuple(
        Alike(", ".join(compact_names(one.name for one in family)), tuple(family))
        for family in families.values()
    )


def _without_numbers(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _names(graph: Graph) -> dict[Axis, str]:
    """A name for every group's axis; the second of two equal names has the group's id."""
    fields = _fields_by_axis(graph)
    own = {axis: _own_field(found) for axis, found in fields.items()}
    names: dict[Axis, str] = {}
    taken: set[str] = set()
    for group in graph.groups:
        field = own.get(group.axis)
        name = None if field is None else str(field)
        name = name or _per_unit(group, graph, own) or _layer(fields.get(group.axis, []))
        if name is None or name in taken:
            name = group.id
        taken.add(name)
        names[group.axis] = name
    return names


def _fields_by_axis(graph: Graph) -> dict[Axis, list[Field]]:
    """The attributes that are known to be the size of one axis, in the order of the relations."""
    found: dict[Axis, list[Field]] = {}
    for relation in graph.relations:
        if relation.op != "eq" or not relation.holds:
            continue
        for field, size in (
            (relation.left, relation.right),
            (relation.right, relation.left),
        ):
            if isinstance(field, Field) and isinstance(size, Size):
                axes = set(axes_of(size.dim))
                # both halves of a rotary head are one axis: the head's width is twice its size
                if len(axes) == 1 and len(size.dim) == 1:
                    found.setdefault(axes.pop(), []).append(field)
    return found


def _own_field(fields: list[Field]) -> Field | None:
    """The attribute that the model's author gave the size: nearest the root, then the first."""
    own = [field for field in fields if field.name.rpartition(".")[2] not in _LAYER_WORDS]
    return min(own, key=lambda field: field.owner.count(".") + bool(field.owner), default=None)


def _layer(fields: list[Field]) -> str | None:
    """The first layer that makes the axis, what it counts there, and how many more make it."""
    layers = [field for field in fields if field.name in _LAYER_WORDS]
    makers = [field for field in layers if field.name in _MAKERS] or layers[:1]
    if not makers:
        return None
    first, others = makers[0], len({field.owner for field in makers}) - 1
    name = f"{first.owner} {_LAYER_WORDS[first.name]}".strip()
    return f"{name} (and of {others} more)" if others else name


def _per_unit(group: Group, graph: Graph, own: Mapping[Axis, Field | None]) -> str | None:
    """What follows a named factor in a product: the width of each of a module's heads."""
    for member in group.members:
        for product in _products(graph.tensors[member.tensor].dims[member.dim]):
            for outer, inner in pairwise(product):
                field = own.get(outer) if isinstance(outer, Axis) else None
                if field is not None and group.axis in set(axes_of((inner,))):
                    return f"{field.owner} width of each of {field.name}".strip()
    return None


def _unit(group: Group, graph: Graph) -> int:
    """Indices that one unit takes in the dimension of its first member."""
    member = group.members[0]
    for product in _products(graph.tensors[member.tensor].dims[member.dim]):
        for position, factor in enumerate(product):
            if factor == group.axis:
                return dim_size(product[position + 1 :])
    return 1


def _products(dim: Dim) -> Iterator[Dim]:
    """A dimension, and those inside its concatenations."""
    yield dim
    for factor in dim:
        if isinstance(factor, Concat):
            for part in factor.parts:
                yield from _products(part)
