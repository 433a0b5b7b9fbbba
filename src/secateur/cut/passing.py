"""The reference for removed blocks: the original in which each passes its stream on unchanged.

The blocks still run there, so whatever they leave besides their stream, such as the keys and
values of a cache, is among the reference's outputs and not among the cut model's; it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from secateur.core.blocks import made_by
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.graph.bypass import bypassed

Kept = Callable[[list[Tensor]], list[Tensor]]


@contextmanager
def without_depth(reference: nn.Module, graph: Graph, removed: Collection[str]) -> Iterator[Kept]:
    """Removed blocks of `reference` pass their stream on; yields what leaves out of its outputs
    those that only a removed block made."""
    gone = _made_inside(graph, removed)

    def kept(outputs: list[Tensor]) -> list[Tensor]:
        if len(outputs) != len(graph.output_storages):
            return outputs
        pairs = zip(outputs, graph.output_storages, strict=True)
        return [tensor for tensor, storage in pairs if storage not in gone]

    with bypassed(reference, [block for block in graph.blocks if block.path in removed]):
        yield kept


def and_blocks(plan: Plan) -> str:
    """What a message says of a plan's removed blocks."""
    if not plan.removed:
        return ""
    return f" and {len(plan.removed)} removed blocks ({', '.join(plan.removed[:3])}, ..)"


def _made_inside(graph: Graph, removed: Collection[str]) -> set[int]:
    """Memory that removed blocks make, but for the stream."""
    made: set[int] = set()
    for call in graph.calls:
        if call.module in removed:
            ops = graph.ops[call.span[0] : call.span[1]]
            made |= made_by(ops) - {call.storages[0]}
    return made
