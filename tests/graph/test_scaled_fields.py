"""A number made of a field is followed to the sizes that the field has a part in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import secateur as sc


class Divided(nn.Module):
    """Two widths from one attribute, neither of them the attribute itself."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 24
        self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x)).view(x.shape[0], self.width // 2)
        return self.out(torch.relu(hidden / math.sqrt(self.width) - 0.1))


def test_a_field_that_is_twice_a_size_flags_it() -> None:
    model, inputs = Divided(), torch.randn(4, 5)
    graph = sc.trace(model, inputs)
    (group,) = graph.free
    assert group.size == 12 and "scaled" in group.flags
    plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=0.5)
    small = sc.cut(model, plan)
    assert small.width == 12
    proof = sc.verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    assert list(proof.corrected) == [group.id] and proof.max_rel_error < 1e-12
