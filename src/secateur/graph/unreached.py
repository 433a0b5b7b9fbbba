"""Rows of a table that the example inputs do not reach: sliced off, used by no operator.

`positions[:, :steps]` splits a table of positions in the rows for these inputs and a rest that
longer inputs need. Zeroing the rest changes no output, so nothing else would keep it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from secateur.core.dims import Axis, Concat, axes_of
from secateur.core.graph import Group, Op, TensorType

REASON = "the example inputs do not reach it: it is sliced off before any operator"
_ONLY_MOVING = frozenset(
    "slice select narrow split split_with_sizes chunk alias view _unsafe_view reshape detach "
    "expand unsqueeze squeeze permute transpose t clone _to_copy to lift_fresh".split()
)


def pin_unreached(
    groups: Sequence[Group], tensors: Mapping[str, TensorType], ops: Sequence[Op]
) -> list[Group]:
    """The groups, with those pinned that no operator computes with."""
    sliced = {group.axis for group in groups if _is_sliced(group, tensors)}
    for op in ops if sliced else ():
        if op.name not in _ONLY_MOVING:
            for value in (*op.inputs, *op.outputs):
                sliced -= {axis for dim in value.dims for axis in axes_of(dim)}
    return [replace(g, pinned=REASON) if g.axis in sliced else g for g in groups]


def _is_sliced(group: Group, tensors: Mapping[str, TensorType]) -> bool:
    """Free, and in each of its tensors a part of a longer dimension."""
    return group.pinned is None and all(
        _within_part(group.axis, tensors, member.tensor, member.dim) for member in group.members
    )


def _within_part(axis: Axis, tensors: Mapping[str, TensorType], name: str, k: int) -> bool:
    dim = tensors[name].dims[k]
    return axis not in dim and any(isinstance(factor, Concat) for factor in dim)
