"""A workload from a graph: any model that can be traced, at the batch that it was traced with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from secateur.core.dims import dim_size
from secateur.core.graph import Graph, Op, TensorType
from secateur.engines.simulator.saved_activations import saved_by_op
from secateur.engines.simulator.workload import FLOAT, Unit, Weight, Workload


def workload_of(graph: Graph, *, name: str = "model", units: Sequence[str] = ()) -> Workload:
    """What a traced model is to the simulator. units: paths of the modules that FSDP2 wraps, in
    the order of the forward; the graph's residual blocks by default.

    Raises: ValueError for a unit within another one.
    """
    paths = tuple(units) or tuple(block.path for block in graph.blocks)
    _check(paths)
    parts = {path: _Part() for path in (*paths, "")}
    for tensor_name, tensor in graph.tensors.items():
        if tensor.is_parameter:
            parts[_owner(tensor_name, paths)].weights.append(_weight(tensor))
    for op, kept in saved_by_op(graph):
        part = parts[_owner(op.module, paths)]
        part.macs += sum(prod(dim_size(dim) for dim in term) for term in op.macs)
        part.count_(op, kept)
    return Workload(
        name=name,
        units=tuple((part.unit(path or "the rest"), 1) for path, part in parts.items()),
        buffers=_buffers(graph.tensors),
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

    def count_(self, op: Op, kept: int) -> None:
        """One more operator; what is not of four bytes (indices, masks) keeps its type."""
        if self.entry_elements == 0 and op.inputs:
            self.entry_elements = prod(dim_size(dim) for dim in op.inputs[0].dims)
        if op.inputs and op.outputs and op.outputs[0].itemsize == FLOAT:
            self.kept_elements += kept // FLOAT
            kept %= FLOAT
        self.kept_bytes += kept

    def unit(self, name: str) -> Unit:
        """The finished value."""
        return Unit(
            name,
            tuple(self.weights),
            macs=self.macs,
            kept_elements=self.kept_elements,
            kept_bytes=self.kept_bytes,
            entry_elements=self.entry_elements,
        )


def _owner(path: str, units: Sequence[str]) -> str:
    """The unit that a tensor or module lies in, "" for none."""
    return next((unit for unit in units if path == unit or path.startswith(f"{unit}.")), "")


def _check(paths: Sequence[str]) -> None:
    for path in paths:
        outer = _owner(path, [other for other in paths if other != path])
        if outer:
            raise ValueError(f"unit {path!r} lies within unit {outer!r}; name one of them")


def _weight(tensor: TensorType) -> Weight:
    sizes = [dim_size(dim) for dim in tensor.dims]
    rows, columns = (sizes[0], prod(sizes[1:])) if sizes else (1, 1)
    return Weight(rows, columns, trainable=tensor.trainable)


def _buffers(tensors: Mapping[str, TensorType]) -> tuple[int, ...]:
    """Bytes of the buffers by bytes of an element, as DDP packs them together."""
    sizes: dict[int, int] = {}
    for tensor in tensors.values():
        if not tensor.is_parameter:
            elements = prod(dim_size(dim) for dim in tensor.dims)
            sizes[tensor.itemsize] = sizes.get(tensor.itemsize, 0) + elements * tensor.itemsize
    return tuple(sizes.values())


def _batch(graph: Graph) -> int:
    """Length of dim 0 of the first input."""
    return next((dim_size(dims[0]) for dims in graph.inputs if dims), 1)
