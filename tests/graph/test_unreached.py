"""A table of which the example inputs reach the first rows keeps the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.graph.unreached import REASON


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(20, 12))
        self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x) + self.table[: x.shape[1]]))


def test_rows_beyond_the_example_are_pinned() -> None:
    model, inputs = Positions(), torch.randn(2, 6, 5)
    graph = sc.trace(model, inputs)
    assert [group.size for group in graph.free] == [12]
    rest = next(group for group in graph.groups if group.size == 14)
    assert rest.pinned == REASON
    plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=0.5)
    longer = torch.randn(2, 20, 5)
    assert sc.cut(model, plan)(longer).shape == (2, 20, 3)


def test_parts_that_are_used_apart_stay_free() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.out = nn.Linear(5, 16), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            gate, value = self.both(x).chunk(2, -1)
            return self.out(gate.sigmoid() * value)

    graph = sc.trace(Halves(), torch.randn(2, 5))
    assert [group.size for group in graph.free if not group.structural] == [8]
