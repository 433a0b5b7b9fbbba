"""What a criterion sees: for each member of a group a matrix with one row per unit.

U units of the group, R elements of the member that belong to one unit. A row of a convolution's
weight is a filter, or all that reads one input channel; of a fused qkv weight it is the three rows
of one head. The matrices are made one at a time, from views where the layout allows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.core.dims import unit_rows
from secateur.core.graph import Graph, Group, Member


@dataclass(frozen=True, slots=True)
class UnitMatrix:
    """One member: weights w_UR and, where the criterion needs it, evidence e_UR of equal shape:
    the gradient of each weight, its curvature, or the norm of what it is multiplied with."""

    w_UR: Float[Tensor, "units rest"]
    e_UR: Float[Tensor, "units rest"] | None = None


@dataclass(frozen=True, slots=True)
class UnitActivations:
    """Of each unit, over all positions of the calibration data, where the next layers read it: the
    mean of its activations, of their magnitudes and squares, and the fraction that is zero."""

    mean_U: Float[Tensor, " units"]
    magnitude_U: Float[Tensor, " units"]
    square_U: Float[Tensor, " units"]
    zero_U: Float[Tensor, " units"]


@dataclass(frozen=True, slots=True)
class Context:
    """What else a criterion may use: the group's id, its number of units, its own random stream,
    and statistics of its activations where the criterion needs them."""

    group: str
    units: int
    generator: torch.Generator
    activations: UnitActivations | None = None


def context_of(
    id: str, units: int, seed: int, activations: UnitActivations | None = None
) -> Context:
    """The context of a group or block, with a random stream that depends on seed and id alone."""
    return Context(id, units, generator_of(id, seed), activations)


def generator_of(id: str, seed: int) -> torch.Generator:
    """A random stream that depends on seed and id alone."""
    digest = hashlib.sha256(f"{seed}:{id}".encode()).digest()
    # 63 bits: a generator's seed is a signed 64-bit integer
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def parameter_members(graph: Graph, group: Group) -> Iterator[Member]:
    """The members that are parameters; buffers follow a cut but say nothing about importance."""
    return (member for member in group.members if graph.tensors[member.tensor].is_parameter)


@dataclass(frozen=True)
class Matrices:
    """The matrices of a group's members, made one at a time, as often as they are walked through.

    evidence: by parameter name; members without any are left out. None where none is needed.
    """

    graph: Graph
    group: Group
    members: Sequence[Member]
    tensors: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor] | None = None

    def __iter__(self) -> Iterator[UnitMatrix]:
        for member in self.members:
            found = None if self.evidence is None else self.evidence.get(member.tensor)
            if self.evidence is None or found is not None:
                yield UnitMatrix(
                    self._rows(member, self.tensors[member.tensor]),
                    None if found is None else self._rows(member, found),
                )

    def _rows(self, member: Member, tensor: Tensor) -> Tensor:
        return unit_matrix(self.graph, self.group, member, tensor)


def unit_matrix(graph: Graph, group: Group, member: Member, tensor: Tensor) -> Tensor:
    """`tensor`, a member's values or evidence, as [units, rest]; at least float32."""
    dim = graph.tensors[member.tensor].dims[member.dim]
    rows = list(unit_rows(tensor.detach(), member.dim, dim, group.axis))
    matrix = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return matrix.float() if matrix.dtype.itemsize < 4 else matrix


def combined(total: Tensor, one: Tensor, power: float) -> Tensor:
    """The sum of the members' powers so far with one more; of an infinite power the largest."""
    return total.maximum(one) if math.isinf(power) else total + one**power


def rooted(total: Tensor, power: float) -> Tensor:
    """The importance that a sum of powers stands for.

    >>> total = combined(torch.tensor([9.0]), torch.tensor([4.0]), 2.0)
    >>> rooted(total, 2.0).tolist()
    [5.0]
    """
    # a power of one may hold negative numbers, which a root would spoil
    return total if power == 1 or math.isinf(power) else total ** (1 / power)
