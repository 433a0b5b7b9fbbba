"""A workload from a graph: any model that can be traced, at the batch that it was traced with.

Where a tensor-parallel plan is given the sizes are those of its first rank, which has most, and
what the ranks add up is what the plan says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from secateur.core.dims import Counts, Dim, dim_size, new_size
from secateur.core.graph import Graph, Op, TensorType
from secateur.engines.simulator.meetings import Met, met
from secateur.engines.simulator.saved_activations import saved_by_op
from secateur.engines.simulator.workload import FLOAT, Unit, Weight, Workload
from secateur.engines.tensor_parallel.value import TensorParallelPlan


def workload_of(
    graph: Graph,
    *,
    name: str = "model",
    units: Sequence[str] = (),
    shared_out: TensorParallelPlan | None = None,
) -> Workload:
    """What a traced model is to the simulator. units: paths of the modules that FSDP2 wraps, in
    the order of the forward; the graph's residual blocks by default. shared_out: how ranks share
    its layers.

    Raises: ValueError for a unit within another one.
    """
    paths = tuple(units) or tuple(block.path for block in graph.blocks)
    _check(paths)
    counts = {} if shared_out is None else _counts(shared_out)
    parts = {path: _Part() for path in (*paths, "")}
    for tensor_name, tensor in graph.tensors.items():
        if tensor.is_parameter:
            parts[_owner(tensor_name, paths)].weights.append(_weight(tensor, counts))
    for op, kept in saved_by_op(graph, counts=counts):
        parts[_owner(op.module, paths)].count_(op, kept, counts)
    for found in () if shared_out is None else met(graph, shared_out):
        parts[_owner(found.module, paths)].meet_(found)
    return Workload(
        name=name,
        units=tuple((part.unit(path or "the rest"), 1) for path, part in parts.items()),
        buffers=_buffers(graph.tensors, counts),
        samples=_batch(graph),
    )


@dataclass(slots=True)
class _Part:
    """A unit being gathered."""

    weights: list[Weight] = field(default_factory=list)
    macs: int = 0
    kept_elements: int = 0
    kept_bytes: int = 0
    entry_elements: int = 0
    batch_norms: list[int] = field(default_factory=list)
    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)

    def count_(self, op: Op, kept: int, counts: Counts) -> None:
        """One more operator; what is not of four bytes (indices, masks) keeps its type."""
        self.macs += sum(_size(term, counts) for term in op.macs)
        if op.name == "batch_norm":
            self.batch_norms.append(new_size(op.inputs[0].dims[1], counts))
        if self.entry_elements == 0 and op.inputs:
            self.entry_elements = _size(op.inputs[0].dims, counts)
        if op.inputs and op.outputs and op.outputs[0].itemsize == FLOAT:
            self.kept_elements += kept // FLOAT
            kept %= FLOAT
        self.kept_bytes += kept

    def meet_(self, found: Met) -> None:
        """One more place where ranks add something up."""
        (self.forward if found.forward else self.backward).append(found.elements)

    def unit(self, name: str) -> Unit:
        """The finished value."""
        return Unit(
            name,
            tuple(self.weights),
            macs=self.macs,
            kept_elements=self.kept_elements,
            kept_bytes=self.kept_bytes,
            forward_reduced=tuple(self.forward),
            backward_reduced=tuple(self.backward),
            entry_elements=self.entry_elements,
            batch_norms=tuple(self.batch_norms),
        )


def _counts(plan: TensorParallelPlan) -> dict[int, int]:
    """Units of each axis that the first rank holds."""
    return {axis.index: len(plan.units(group, 0)) for group, axis in plan.axes.items()}


def _owner(path: str, units: Sequence[str]) -> str:
    """The unit that a tensor or module lies in, "" for none."""
    return next((unit for unit in units if path == unit or path.startswith(f"{unit}.")), "")


def _check(paths: Sequence[str]) -> None:
    for path in paths:
        outer = _owner(path, [other for other in paths if other != path])
        if outer:
            raise ValueError(f"unit {path!r} lies within unit {outer!r}; name one of them")


def _size(dims: Sequence[Dim], counts: Counts) -> int:
    return prod(new_size(dim, counts) for dim in dims)


def _weight(tensor: TensorType, counts: Counts) -> Weight:
    if not tensor.dims:
        return Weight(1, trainable=tensor.trainable)
    first, *others = tensor.dims
    return Weight(new_size(first, counts), _size(others, counts), trainable=tensor.trainable)


def _buffers(tensors: Mapping[str, TensorType], counts: Counts) -> int:
    return sum(
        _size(tensor.dims, counts) * tensor.itemsize
        for tensor in tensors.values()
        if not tensor.is_parameter
    )


def _batch(graph: Graph) -> int:
    """Length of dim 0 of the first input."""
    return next((dim_size(dims[0]) for dims in graph.inputs if dims), 1)
