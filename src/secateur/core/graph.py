"""The graph: what one recorded forward taught about a model, as a value.

`graph/` makes it; scoring, planning, cutting and the report read it. It holds no tensors and no
modules, so it can be saved, hashed and sent to another process. What it has thousands of are named
tuples, which are made in half the time of frozen dataclasses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from secateur.core.blocks import Block, find_blocks
from secateur.core.dims import Axis, Dim, dim_to_json
from secateur.core.expressions import Field, Relation, expression_to_json
from secateur.core.scales import Scale


class Member(NamedTuple):
    """A tensor dimension in which a group's axis occurs."""

    tensor: str
    dim: int


@dataclass(frozen=True, slots=True)
class Group:
    """Units that can be removed: one index of `axis` in every member at once.

    id: readable and stable for a model. flags: why removing differs from zeroing, a subset of
    {"renormalised", "scaled"}, each with its reason in `notes`; none means exact. pinned: why
    nothing may be removed, or None. structural: the model's design rather than its width (a
    repeat factor, fewer than four units); left alone unless asked for.
    """

    id: str
    axis: Axis
    members: tuple[Member, ...]
    flags: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    pinned: str | None = None
    structural: bool = False

    @property
    def size(self) -> int:
        """Number of units."""
        return self.axis.size

    @property
    def exact(self) -> bool:
        """Whether removing a unit equals zeroing it."""
        return not self.flags


class Value(NamedTuple):
    """A tensor that an operator reads or writes: `storage` tells which memory, views share it."""

    storage: int
    dims: tuple[Dim, ...]
    itemsize: int


class Op(NamedTuple):
    """One recorded operator. `macs` is a sum of products: each term is a tuple of dimensions."""

    name: str
    module: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    macs: tuple[tuple[Dim, ...], ...] = ()


class Call(NamedTuple):
    """One module call in order of its end: the module and the dimensions of its outputs.

    Of a module with children also what a block is found by: the tensors given to it, the memory
    of its outputs, the operators that ran inside, as a range of `Graph.ops`, and whether it is
    `plain`: called with one tensor alone and returning one.
    """

    module: str
    kind: str
    outputs: tuple[tuple[Dim, ...], ...]
    inputs: tuple[Value, ...] = ()
    storages: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)
    plain: bool = False


class TensorType(NamedTuple):
    """A parameter or buffer: its dimensions, bytes per element, kind, and its other names.

    A buffer that is not `persistent` is missing from the state dict and made anew by a constructor.
    """

    dims: tuple[Dim, ...]
    itemsize: int
    trainable: bool
    is_parameter: bool
    aliases: tuple[str, ...] = ()
    persistent: bool = True


@dataclass(frozen=True)
class Graph:
    """What can be removed from a model, what it costs and what must stay true.

    groups: removable and pinned ones, in the order of the model's tensors. tensors: by canonical
    name. fields: integer attributes whose meaning is known, with their present value.
    unknown_ops: operators without a rule and how often each ran; what they touch is pinned.
    output_storages: the memory of each output. containers: every ModuleList and Sequential by
    path, and whether the forward picks elements of it by number.
    fingerprint: of the model (tensor names and shapes, module classes). scales: numbers that the
    model makes of its sizes and whose change its weights can absorb, so that a cut stays exact.
    """

    groups: tuple[Group, ...]
    tensors: Mapping[str, TensorType]
    ops: tuple[Op, ...]
    calls: tuple[Call, ...]
    relations: tuple[Relation, ...]
    fields: Mapping[Field, int]
    inputs: tuple[tuple[Dim, ...], ...]
    outputs: tuple[tuple[Dim, ...], ...]
    unknown_ops: Mapping[str, int]
    fingerprint: str
    warnings: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    output_storages: tuple[int, ...] = ()
    containers: Mapping[str, bool] = field(default_factory=dict)

    def group(self, id: str) -> Group:
        """The group with this id. Raises: KeyError that names the id."""
        return self._by_id[id]

    @cached_property
    def _by_id(self) -> dict[str, Group]:
        return {group.id: group for group in self.groups}

    @property
    def free(self) -> tuple[Group, ...]:
        """Groups from which units may be removed."""
        return tuple(group for group in self.groups if group.pinned is None)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Residual blocks in the order of the forward, removable as a whole or pinned."""
        return find_blocks(self)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that decides a plan: tensors, groups, relations, fields."""
        body = json.dumps(self._decisive(), separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()

    def _decisive(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "tensors": {
                name: [dim_to_json(dim) for dim in tensor.dims]
                for name, tensor in self.tensors.items()
            },
            # a group's members are told by the tensors' dimensions, its notes by its flags
            "groups": [
                [g.id, g.axis.index, sorted(g.flags), g.pinned, g.structural] for g in self.groups
            ],
            "relations": [
                [r.op, expression_to_json(r.left), expression_to_json(r.right), r.holds]
                for r in self.relations
            ],
            "fields": {str(key): value for key, value in self.fields.items()},
            "scales": [
                [
                    expression_to_json(scale.expression),
                    scale.power,
                    [[rows.tensor, rows.dim, rows.ranges] for rows in scale.weights],
                ]
                for scale in self.scales
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """The graph for `graph.json` and for people: no operators, only counts of them."""
        return {
            **self._decisive(),
            "groups": [group_to_json(group) for group in self.groups],
            "hash": self.hash,
            "operators": len(self.ops),
            "unknown_ops": dict(self.unknown_ops),
            "warnings": list(self.warnings),
            "inputs": [[dim_to_json(dim) for dim in dims] for dims in self.inputs],
            "outputs": [[dim_to_json(dim) for dim in dims] for dims in self.outputs],
        }


def group_to_json(group: Group) -> dict[str, Any]:
    """A group as JSON."""
    return {
        "id": group.id,
        "axis": group.axis.index,
        "size": group.size,
        "members": [[member.tensor, member.dim] for member in group.members],
        "flags": sorted(group.flags),
        "notes": list(group.notes),
        "pinned": group.pinned,
        "structural": group.structural,
    }
