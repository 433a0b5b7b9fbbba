"""A slice whose bound is a number in a tensor: nothing tells how to rewrite it, so it pins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import secateur as sc


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.both, self.out = nn.Linear(5, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        both, width = self.both(x), torch.IntTensor([self.width])[0]
        return self.out(torch.tanh(both[:, :width]) * torch.sigmoid(both[:, width:]))


def test_the_parts_are_pinned() -> None:
    graph = sc.trace(Gated(), torch.randn(4, 5))
    assert not graph.free
    assert any("literal size" in (group.pinned or "") for group in graph.groups)
