"""What a criterion sees: for each member of a group a matrix with one row per unit.

U units of the group, R elements of the member that belong to one unit. A row of a convolution's
weight is a filter, or all that reads one input channel; of a fused qkv weight it is the three rows
of one head. The matrices are made one at a time, from views where the layout allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.core.dims import unit_rows
from secateur.core.graph import Graph, Group, Member


@dataclass(frozen=True, slots=True)
class UnitMatrix:
    """One member: weights w_UR and, where the criterion needs it, gradients g_UR of equal shape."""

    w_UR: Float[Tensor, "units rest"]
    g_UR: Float[Tensor, "units rest"] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What else a criterion may use: the group's id, its number of units, its own random stream."""

    group: str
    units: int
    generator: torch.Generator


def context_of(id: str, units: int, seed: int) -> Context:
    """The context of a group or block, with a random stream that depends on seed and id alone."""
    digest = hashlib.sha256(f"{seed}:{id}".encode()).digest()
    # 63 bits: a generator's seed is a signed 64-bit integer
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
    return Context(id, units, generator)


def parameter_members(graph: Graph, group: Group) -> Iterator[Member]:
    """The members that are parameters; buffers follow a cut but say nothing about importance."""
    return (member for member in group.members if graph.tensors[member.tensor].is_parameter)


def unit_matrix(graph: Graph, group: Group, member: Member, tensor: Tensor) -> Tensor:
    """`tensor`, a member's values or gradients, as [units, rest]; at least float32."""
    dim = graph.tensors[member.tensor].dims[member.dim]
    rows = list(unit_rows(tensor.detach(), member.dim, dim, group.axis))
    matrix = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return matrix.float() if matrix.dtype.itemsize < 4 else matrix
