"""Pairs read as complex numbers out of wider rows: the kernel wants even strides."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import secateur as sc


class Rotary(nn.Module):
    """A latent and a rotary part in one projection, as in multi-head latent attention."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(5, 12 + 4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent, rotary = torch.split(self.into(x), [self.out.in_features, 4], dim=-1)
        pairs = torch.view_as_complex(rotary.unflatten(-1, (2, 2)))
        return self.out(latent), torch.view_as_real(pairs * 1j).flatten(1)


def test_no_plan_makes_an_odd_stride() -> None:
    model, inputs = Rotary(), torch.randn(3, 5)
    graph = sc.trace(model, inputs)
    assert not graph.unknown_ops
    for share in (0.25, 0.5, 0.75):
        plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=share)
        sc.verify(model, sc.cut(model, plan), plan, inputs, graph=graph)


def test_contiguous_pairs_leave_their_neighbours_free() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(5, 24), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            pairs = torch.view_as_complex(self.into(x).unflatten(-1, (-1, 2)))
            return self.out(torch.view_as_real(pairs * 1j).flatten(1))

    graph = sc.trace(Apart(), torch.randn(3, 5))
    assert [group.size for group in graph.free] == [12]
