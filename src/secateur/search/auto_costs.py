"""Costs of a model on the way to a target, by what was timed of the dense one.

A cut model's groups are the dense model's, by their ids, with fewer units: so no model on the way
needs timings of its own to be told how long it would take.
"""

from __future__ import annotations

from dataclasses import replace

from secateur.core.cost import Cost
from secateur.core.dims import Counts
from secateur.core.errors import PlanMismatchError
from secateur.core.graph import Graph
from secateur.cost.counted import CostModel
from secateur.cost.timed import LatencyModel, Timings


class StepCosts(CostModel):
    """Counted costs of `graph`, whose model was cut from that of `dense`, and predicted latency.

    Raises: PlanMismatchError where a group of the cut model is none of the dense one.
    """

    def __init__(self, graph: Graph, dense: Graph, timings: Timings) -> None:
        super().__init__(graph)
        axes = {group.id: group.axis.index for group in dense.groups}
        unknown = [group.id for group in graph.groups if group.id not in axes]
        if unknown:
            raise PlanMismatchError(
                f"group {unknown[0]!r} of the cut model is none of the dense one's, so what was "
                "timed says nothing about it; budget what can be counted, for example macs=50%"
            )
        self._sizes = {axes[group.id]: group.size for group in graph.groups}
        self._dense_axis = {group.axis.index: axes[group.id] for group in graph.groups}
        self._latency = LatencyModel(dense, timings)

    def cost(self, counts: Counts) -> Cost:
        """Counted figures and milliseconds."""
        kept = {self._dense_axis[axis]: count for axis, count in counts.items()}
        return replace(
            super().cost(counts), latency_ms=self._latency.latency_ms({**self._sizes, **kept})
        )
