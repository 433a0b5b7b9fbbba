"""How many units at a time keep the width of every layer a multiple.

What kernels want to be a multiple of 8 is a layer's width, not a number of units: of ``heads * 64``
any number of heads is one. So in each width the innermost axis that may move answers for the
multiple, with what stands behind it counted in, and the axes before it are free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import gcd, lcm

from secateur.core.dims import Axis, Dim, axes_of, dim_size
from secateur.core.expressions import Field, Size
from secateur.core.graph import Graph

_WIDTHS = frozenset(
    "out_features in_features out_channels in_channels num_features embedding_dim hidden_size "
    "input_size normalized_shape".split()
)


def unit_steps(graph: Graph, moving: Collection[int], multiple: int) -> dict[int, int]:
    """By axis index, the step in which the counts of the `moving` axes may change."""
    if multiple == 1:
        return {}
    widths = list(_layer_widths(graph))
    covered = {axis.index for dim in widths for axis in axes_of(dim)}
    widths += [
        dim
        for tensor in graph.tensors.values()
        if tensor.is_parameter and len(tensor.dims) > 1
        for dim in tensor.dims
        if not any(axis.index in covered for axis in axes_of(dim))
    ]
    steps: dict[int, int] = {}
    for dim in dict.fromkeys(widths):
        for index, step in _innermost(dim, moving, multiple, 1):
            steps[index] = lcm(steps.get(index, 1), step)
    # of an axis that is no width of its own (heads) any number will do
    within = {axis.index for dim in widths for axis in axes_of(dim)}
    return steps | {index: multiple for index in moving if index not in within | steps.keys()}


def _layer_widths(graph: Graph) -> Iterator[Dim]:
    """The dimensions that torch's layers call their widths."""
    for relation in graph.relations:
        if relation.op == "eq" and relation.holds:
            for field, size in (
                (relation.left, relation.right),
                (relation.right, relation.left),
            ):
                if isinstance(field, Field) and field.name in _WIDTHS and isinstance(size, Size):
                    yield size.dim


def _innermost(
    dim: Dim, moving: Collection[int], multiple: int, behind: int
) -> Iterator[tuple[int, int]]:
    """The last moving axis of a dimension (of each of its parts) and its step; `behind`: indices
    that stand behind each of the dimension's."""
    for factor in reversed(dim):
        if isinstance(factor, Axis):
            if factor.index in moving:
                yield factor.index, multiple // gcd(multiple, behind)
                return
        elif any(axis.index in moving for axis in axes_of((factor,))):
            parts = dict.fromkeys(factor.parts)
            # the halves of a rotary head are one axis twice
            times = len(factor.parts) if len(parts) == 1 else 1
            for part in parts:
                yield from _innermost(part, moving, multiple, behind * times)
            return
        behind *= dim_size((factor,))
