"""Graphs written down by hand: a chain of linear layers, and one with a rule over its sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from secateur.core.dims import Axis, Dim
from secateur.core.expressions import Field, Relation, Size
from secateur.core.graph import Graph, Group, Member, Op, TensorType, Value
from secateur.core.plan import Scores


def chain(widths: Sequence[int]) -> Graph:
    """Linear layers l0, l1, ..: widths[0] inputs, then each layer's outputs; the ends are pinned.

    Parameters: sum of w[k] * w[k+1]; MACs: the same at batch 1.
    """
    axes = [Axis(k, width) for k, width in enumerate(widths)]
    tensors = {}
    ops = []
    fields = {}
    relations = []
    for k, (a, b) in enumerate(pairwise(axes)):
        tensors[f"l{k}.weight"] = TensorType(((b,), (a,)), 4, True, True)
        x, y = Value(k, ((a,),), 4), Value(k + 1, ((b,),), 4)
        w = Value(1000 + k, ((b,), (a,)), 4)
        ops.append(Op("mm", f"l{k}", (x, w), (y,), macs=(((a,), (b,)),)))
        for name, axis in (("in_features", a), ("out_features", b)):
            fields[Field(f"l{k}", name)] = axis.size
            relations.append(Relation("eq", Field(f"l{k}", name), Size((axis,))))
    groups = []
    for k, axis in enumerate(axes):
        reason = {0: "the model's input", len(axes) - 1: "the model's output"}.get(k)
        members = [Member(f"l{k - 1}.weight", 0)] if k else []
        members += [Member(f"l{k}.weight", 1)] if k < len(axes) - 1 else []
        groups.append(Group(f"w{k}", axis, tuple(members), pinned=reason))
    ends: list[tuple[Dim, ...]] = [((axes[0],),), ((axes[-1],),)]
    return Graph(
        groups=tuple(groups),
        tensors=tensors,
        ops=tuple(ops),
        calls=(),
        relations=tuple(relations),
        fields=fields,
        inputs=(ends[0],),
        outputs=(ends[1],),
        unknown_ops={},
        fingerprint="chain",
    )


def random_scores(graph: Graph, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {g.id: torch.rand(g.size, dtype=torch.float64, generator=generator) for g in graph.free}


@pytest.fixture(scope="session")
def make_chain() -> Callable[[Sequence[int]], Graph]:
    return chain


@pytest.fixture(scope="session")
def make_scores() -> Callable[..., Scores]:
    return random_scores
