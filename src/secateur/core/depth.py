"""A graph without some of its blocks, and the names that modules get when a list closes its gaps.

Where a block is gone its stream goes on: whatever read its output reads its input. Groups lose the
members that went with it, costs the tensors and operators, so that planning and counting need to
know nothing about depth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate, chain

from secateur.core.blocks import inside
from secateur.core.dims import axes_of
from secateur.core.expressions import Field, Relation, Size, leaves
from secateur.core.graph import Call, Graph, Group, Op, Value


def without_blocks(graph: Graph, removed: Collection[str]) -> Graph:
    """The graph of the model when the blocks with these paths pass their stream on unchanged.

    Raises: KeyError for a path that is no block.
    """
    if not removed:
        return graph
    blocks = {block.path: block for block in graph.blocks}
    carried = {blocks[path].path: blocks[path].stream for path in removed}
    calls = {call.module: call for call in graph.calls}
    spans = [calls[path].span for path in removed]
    gone = [any(start <= k < end for start, end in spans) for k in range(len(graph.ops))]
    same = {calls[p].storages[0]: calls[p].inputs[k].storage for p, k in carried.items()}
    tensors = {
        name: tensor
        for name, tensor in graph.tensors.items()
        if any(not within(alias, removed) for alias in (name, *tensor.aliases))
    }
    groups = [_without(group, tensors) for group in graph.groups]
    alive = {group.axis.index for group in groups if group is not None}
    dead = {group.axis.index for group in graph.groups} - alive
    return replace(
        graph,
        groups=tuple(group for group in groups if group is not None),
        tensors=tensors,
        ops=tuple(_renamed(op, same) for op, out in zip(graph.ops, gone, strict=True) if not out),
        calls=tuple(_moved_calls(graph.calls, gone, same, removed)),
        relations=tuple(r for r in graph.relations if not _concerns(r, dead, removed)),
        fields={f: v for f, v in graph.fields.items() if not _owned(f, removed)},
        output_storages=tuple(_root(storage, same) for storage in graph.output_storages),
        scales=tuple(
            scale for scale in graph.scales if all(r.tensor in tensors for r in scale.weights)
        ),
    )


def within(path: str, removed: Iterable[str]) -> bool:
    """Whether a path is one of the removed blocks or below one."""
    return any(inside(path, block) for block in removed)


def renumbered(path: str, taken_out: Collection[str]) -> str:
    """The name of a module or tensor after the lists close their gaps.

    taken_out: paths that leave their lists. The rest of a list is counted anew; a name that is no
    number stays.

    >>> renumbered("layers.5.mlp.weight", {"layers.1", "layers.3", "layers.7"})
    'layers.3.mlp.weight'
    """
    parts = path.split(".")
    new = []
    for k, part in enumerate(parts):
        if part.isdecimal():
            siblings = [".".join([*parts[:k], str(number)]) for number in range(int(part))]
            part = str(int(part) - sum(sibling in taken_out for sibling in siblings))
        new.append(part)
    return ".".join(new)


def _without(group: Group, tensors: Collection[str]) -> Group | None:
    members = tuple(member for member in group.members if member.tensor in tensors)
    if len(members) == len(group.members):
        return group
    return replace(group, members=members) if members else None


def _root(storage: int, same: Mapping[int, int]) -> int:
    while same.get(storage, storage) != storage:
        storage = same[storage]
    return storage


def _renamed(op: Op, same: Mapping[int, int]) -> Op:
    if not any(value.storage in same for value in chain(op.inputs, op.outputs)):
        return op
    return op._replace(inputs=_values(op.inputs, same), outputs=_values(op.outputs, same))


def _values(values: Iterable[Value], same: Mapping[int, int]) -> tuple[Value, ...]:
    return tuple(value._replace(storage=_root(value.storage, same)) for value in values)


def _moved_calls(
    calls: Iterable[Call], gone: list[bool], same: Mapping[int, int], removed: Collection[str]
) -> Iterator[Call]:
    """The calls that still happen, with the ranges of operators that are left of them."""
    before = [0, *accumulate(int(not out) for out in gone)]
    for call in calls:
        if not within(call.module, removed):
            yield call._replace(
                inputs=_values(call.inputs, same),
                storages=tuple(_root(storage, same) for storage in call.storages),
                span=(before[call.span[0]], before[call.span[1]]),
            )


def _owned(field: Field, removed: Collection[str]) -> bool:
    # a dotted name is an object's that other modules may share, such as a configuration
    return "." not in field.name and within(field.owner, removed)


def _concerns(relation: Relation, dead: Collection[int], removed: Collection[str]) -> bool:
    """Whether a relation speaks of a size or an attribute that is gone."""
    for leaf in chain(leaves(relation.left), leaves(relation.right)):
        if isinstance(leaf, Field) and _owned(leaf, removed):
            return True
        if isinstance(leaf, Size) and any(axis.index in dead for axis in axes_of(leaf.dim)):
            return True
    return False
