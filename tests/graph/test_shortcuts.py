"""A call that takes a shortcut is recorded as the dispatcher would have had it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc
from secateur.core.dims import dim_size
from secateur.graph import shortcuts
from secateur.graph.shortcuts import SHORTCUTS, taken


class Everything(nn.Module):
    """Every function that has a shortcut, and forms of them that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.volume = nn.Conv1d(4, 6, 3, padding=1), nn.Conv3d(1, 2, 1)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.deep = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.dilated = nn.Conv2d(8, 12, 3, dilation=2, padding=2)
        self.norm, self.plain = nn.BatchNorm2d(8), nn.BatchNorm2d(12, affine=False)
        self.own = nn.BatchNorm2d(12, track_running_stats=False)
        self.head = nn.Linear(12, 5)
        self.gate = nn.Parameter(torch.rand(12, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.norm(self.first(x))
        y = F.silu(F.hardswish(y.relu())) + F.silu(y, inplace=True) + 1
        y = F.hardswish(self.deep(y).mul_(y), inplace=True)
        z = self.own(self.plain(self.dilated(y)))
        z = F.relu(z, inplace=True) * torch.sigmoid(self.gate).add_(self.gate) * 2.0
        z = F.hardsigmoid(F.hardtanh(z)) + torch.relu(z).add(z, alpha=2)
        z = F.hardtanh(z, -2.0, 2.0, inplace=True) * F.hardsigmoid(z.clone(), inplace=True)
        mapped = torch.func.vmap(lambda row: torch.relu(row) * row)(z)
        pooled = mapped.mean((2, 3))
        pooled += pooled.sigmoid()
        rows = x.flatten(2)[:, :1].expand(-1, 4, -1)
        alone = self.line(rows[0])  # without a batch
        return self.head(pooled), self.line(rows) + alone, self.volume(x[:, None])


def name(func: object) -> str:
    return str(getattr(func, "__name__", func))


def described(graph: sc.Graph) -> object:
    """All that a shortcut could change."""
    ops = [op for op in graph.ops if op.name != "empty"]  # batch norm makes one on its way
    macs = [[[dim_size(dim) for dim in term] for term in op.macs] for op in ops]
    names = [op.name.removeprefix("native_") for op in ops]  # batch norm with or without extras
    return graph.groups, graph.relations, names, [op.module for op in ops], macs


def test_the_graph_is_the_same_without_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = Everything().eval(), torch.randn(2, 3, 16, 16)
    calls: list[object] = []

    def counted(func: object, args: object) -> object:
        found = taken(func, args)  # type: ignore[arg-type]
        calls.append(func) if found else None
        return found

    monkeypatch.setattr("secateur.graph.dispatch.taken", counted)
    short = sc.trace(model, x)
    assert {name(func) for func in SHORTCUTS} == {name(func) for func in calls}
    monkeypatch.setattr(shortcuts, "SHORTCUTS", {})
    assert described(sc.trace(model, x)) == described(short)


def test_the_cut_is_proved() -> None:
    torch.manual_seed(0)
    model, x = Everything().eval().double(), torch.randn(2, 3, 16, 16, dtype=torch.double)
    plan = sc.plan(graph := sc.trace(model, x), sc.score(graph, model), keep=0.5)
    assert sc.verify(model, sc.cut(model, plan), plan, x).max_abs_error < 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: (torch.relu, (torch.zeros(2),)), id="values"),
        pytest.param(lambda: (torch.add, (torch.zeros(2, device="meta"), 1)), id="number"),
        pytest.param(lambda: (torch.tanh, (torch.zeros(2, device="meta"),)), id="unknown"),
    ],
)
def test_what_is_not_sure_takes_the_long_way(wrong: object) -> None:
    func, args = wrong()  # type: ignore[operator]
    assert taken(func, args) is None
