"""How much tensor-parallel ranks add up, and where: the sizes of what a plan's meetings name.

A sum is taken of what a module returns, a gradient's of what it is given or returns, or of a
parameter that it reads. All of those are whole tensors, as large on every rank as in one process.
What needs no gradient, such as the model's inputs, is left out, as it is when the model runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from secateur.core.dims import Dim, dim_size
from secateur.core.graph import Call, Graph, Value
from secateur.engines.simulator.saved_activations import need_gradients, weight_storages
from secateur.engines.tensor_parallel.regions import Spot
from secateur.engines.tensor_parallel.tape import Place
from secateur.engines.tensor_parallel.value import TensorParallelPlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Met:
    """elements: that ranks add up in `module`, in the forward or in the backward."""

    module: str
    elements: int
    forward: bool


def met(graph: Graph, plan: TensorParallelPlan) -> Iterator[Met]:
    """Every all-reduce of one forward and backward of a plan, as often as its module is called."""
    calls: dict[str, list[Call]] = {}
    for call in graph.calls:
        calls.setdefault(call.module, []).append(call)
    needs, given = need_gradients(graph), _given(graph)
    for spots, forward in ((plan.meetings.sums, True), (plan.meetings.copies, False)):
        for spot in sorted(spots, key=lambda spot: (spot.module, str(spot.place))):
            for call in calls.get(spot.module, ()):
                size = _returned(spot, call) if spot.returned else _taken(spot, call, given, needs)
                if size:
                    yield Met(spot.module, size, forward)
    for reading in sorted(plan.meetings.gradients, key=lambda one: (one.module, one.tensor)):
        size = _product(graph.tensors[reading.tensor].dims)
        for _ in calls.get(reading.module, ()):
            yield Met(reading.module, size, forward=False)


def _returned(spot: Spot, call: Call) -> int:
    return _product(_at(call.outputs, spot.place))


def _taken(spot: Spot, call: Call, given: dict[str, Value], needs: Collection[int]) -> int:
    """Of what a module is given; of leaf modules the operators alone know it."""
    value = _at(call.inputs, spot.place) if call.inputs else given[spot.module]
    return _product(value.dims) if value.storage in needs else 0


def _at(tensors: tuple[T, ...], place: Place) -> T:
    """Where a name stands for a place, or one of no tensor, it is the first."""
    return tensors[place] if isinstance(place, int) and place < len(tensors) else tensors[0]


def _given(graph: Graph) -> dict[str, Value]:
    """The first activation that the operators of each module read."""
    weights, found = weight_storages(graph), dict[str, Value]()
    for op in graph.ops:
        for value in op.inputs:
            if value.storage not in weights:
                found.setdefault(op.module, value)
    return found


def _product(dims: tuple[Dim, ...]) -> int:
    return prod(dim_size(dim) for dim in dims)
