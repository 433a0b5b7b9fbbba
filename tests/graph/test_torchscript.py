"""Functions compiled by TorchScript: their operators are seen, their sizes are plain numbers."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

import secateur as sc


def _halves(x: Tensor, size: int) -> Tensor:
    return torch.tanh(x[:, :size]) * torch.sigmoid(x[:, size:])


def _gated(x: Tensor) -> Tensor:
    return torch.tanh(x) * torch.sigmoid(x)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # deprecated, and in many models
    halves, gated = torch.jit.script(_halves), torch.jit.script(_gated)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(4, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(gated(self.second(halves(self.first(x), 4))))
        return y


def test_sizes_given_in_a_script_pin_and_the_rest_is_cut() -> None:
    torch.manual_seed(0)
    model, x = Scripted().eval(), torch.randn(2, 6)
    graph = sc.trace(model, x)
    pinned = {group.id: group.pinned for group in graph.groups}
    assert "TorchScript" in str(pinned["first.weight[0]"])
    assert pinned["second.weight[0]"] is None
    plan = sc.plan(graph, sc.score(graph, model), keep=0.5)
    proof = sc.verify(model, small := sc.cut(model, plan), plan, x)
    assert small.second.out_features == 5 and proof.groups_checked == 1
    assert proof.max_rel_error < 1e-6
