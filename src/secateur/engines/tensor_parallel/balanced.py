"""Shares of what a cut leaves, balanced again; and the whole of a shared-out model, without memory.

The ranks' new units are told in units of the model before the cut, so that both the way of every
row and the attributes of every rank's model follow from plans alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.dims import Axis, Concat, Dim, Factor, dim_size
from secateur.core.errors import EngineError
from secateur.core.expressions import Field
from secateur.core.fingerprint import fingerprint, named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import FieldChange, Plan
from secateur.cut.attributes import rewrite_attributes_
from secateur.engines.tensor_parallel.local import unhook_
from secateur.engines.tensor_parallel.value import TensorParallelPlan, shares
from secateur.select.counts import solve_counts


def skeleton(model: nn.Module, plan: TensorParallelPlan, rank: int) -> nn.Module:
    """The whole model on the meta device, from a rank's: what a trace needs, and no memory."""
    memo: dict[int, Any] = {}
    for name, tensor in named_tensors(model):
        dims = plan.tensors.get(name)
        shape = tensor.shape if dims is None else [dim_size(dim) for dim in dims]
        empty = torch.empty(shape, dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo.setdefault(id(tensor), empty)
    whole = copied(model, memo)
    unhook_(whole)
    back = (FieldChange(c.field, c.after, c.before) for c in plan.changes[rank])
    rewrite_attributes_(whole, tuple(back))
    return whole


class Balanced:
    """What each rank holds after the cut, in units of the whole model before it."""

    def __init__(self, plan: Plan, parallel: TensorParallelPlan, graph: Graph) -> None:
        self.plan, self.parallel, self.graph = plan, parallel, graph
        self.kept = {
            id: plan.keep.get(id, tuple(range(axis.size))) for id, axis in parallel.axes.items()
        }
        few = [id for id, units in self.kept.items() if len(units) < parallel.size]
        if few:
            raise EngineError(
                f"group {few[0]} keeps {len(self.kept[few[0]])} units, which {parallel.size} ranks "
                f"cannot share; plan the cut with tensor_parallel={parallel.size}"
            )
        self.bounds = {id: shares(len(units), parallel.size) for id, units in self.kept.items()}
        self.fields = [self._fields(rank) for rank in range(parallel.size)]

    def units(self, rank: int) -> dict[int, Tensor]:
        """The units of every cut or shared axis that a rank holds."""
        found = dict(self.plan.kept_units())
        for id, axis in self.parallel.axes.items():
            start, stop = self.bounds[id][rank : rank + 2]
            found[axis.index] = torch.tensor(self.kept[id][start:stop])
        return found

    def _fields(self, rank: int) -> Mapping[Field, int]:
        """The attributes of a rank's model."""
        counts = {axis: len(units) for axis, units in self.units(rank).items()}
        sizes = {group.axis.index: group.size for group in self.graph.groups}
        wanted = {axis: n for axis, n in counts.items() if n < sizes[axis]}
        solution = solve_counts(self.graph, wanted)
        moved = [axis for axis, n in wanted.items() if solution.counts.get(axis) != n]
        if moved:
            group = next(g for g in self.graph.groups if g.axis.index == moved[0])
            raise EngineError(
                f"what is left of group {group.id} cannot be shared out over {self.parallel.size} "
                f"ranks: {solution.notes.get(moved[0], 'an equation of sizes forbids it')}; plan "
                f"the cut with tensor_parallel={self.parallel.size}"
            )
        return {**self.graph.fields, **solution.fields}

    def attributes(self, rank: int) -> tuple[FieldChange, ...]:
        """What changes of a rank's model, from its present attributes."""
        before = {**self.graph.fields}
        before |= {change.field: change.after for change in self.parallel.changes[rank]}
        after = self.fields[rank]
        return tuple(
            FieldChange(field, value, after[field])
            for field, value in before.items()
            if after[field] != value
        )

    def parallel_plan(self, model: nn.Module, rank: int) -> TensorParallelPlan:
        """The plan by which the ranks share out the cut model; model: this rank's part of it."""
        parallel, counts = self.parallel, self.plan.counts()
        fields = {**self.graph.fields, **{c.field: c.after for c in self.plan.changes}}
        tensors = {
            name: tuple(_shrunk(dim, counts) for dim in dims)
            for name, dims in parallel.tensors.items()
        }
        plan = replace(
            parallel,
            fingerprint="",
            graph_hash="",
            axes={id: Axis(axis.index, len(self.kept[id])) for id, axis in parallel.axes.items()},
            bounds=self.bounds,
            tensors=tensors,
            changes=tuple(
                tuple(
                    FieldChange(field, value, own[field])
                    for field, value in fields.items()
                    if own[field] != value
                )
                for own in self.fields
            ),
        )
        return replace(plan, fingerprint=fingerprint(skeleton(model, plan, rank)))


def _shrunk(dim: Dim, counts: Mapping[int, int]) -> Dim:
    """A dimension of the model after a cut."""
    found: list[Factor] = []
    for factor in dim:
        if isinstance(factor, Axis):
            found.append(Axis(factor.index, counts.get(factor.index, factor.size)))
        else:
            found.append(Concat(tuple(_shrunk(part, counts) for part in factor.parts)))
    return tuple(found)
