"""Values that number an axis: experts go with their router's rows, or are pinned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc

WIDTH, EXPERTS, CHOSEN = 8, 6, 2


class Experts(nn.Module):
    """Two of six experts for each row, weights stacked; `use` says how a row finds its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(5, WIDTH), nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 12) / 3)
        self.bias = nn.Parameter(torch.randn(EXPERTS, 12))
        self.down = nn.Parameter(torch.randn(EXPERTS, 12, WIDTH) / 3)
        self.head = nn.Linear(WIDTH, 3)
        self.experts = EXPERTS

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        weights, chosen = self.router(x).softmax(-1).topk(CHOSEN, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        return self.head(x + self.use(x, weights, chosen))

    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        hidden = torch.einsum("nc,nkch->nkh", x, self.up[chosen]) + self.bias[chosen]
        out = torch.einsum("nkh,nkhc->nkc", hidden.relu(), self.down[chosen])
        return (out * weights[..., None]).sum(1)


class Sorted(Experts):
    """Rows sorted by expert, one grouped product."""

    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        ids, order = torch.sort(chosen.reshape(-1))
        counts = torch.histc(ids.float(), bins=self.experts, min=0, max=self.experts - 1)
        ends = torch.cumsum(counts, 0, dtype=torch.int32)
        hidden = F.grouped_mm(x[order // CHOSEN], self.up, offs=ends) + self.bias[ids]
        out = F.grouped_mm(hidden.relu(), self.down, offs=ends)
        out = out * weights.reshape(-1)[order][:, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0])
        return out[back].view(-1, CHOSEN, WIDTH).sum(1)


def rows() -> Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [Experts, Sorted])
@pytest.mark.parametrize("count", [2, 4, 5])
def test_experts_go_with_their_rows(make: type[Experts], count: int) -> None:
    model = make().eval()
    graph = sc.trace(model, rows())
    group = graph.group("up[0]")
    assert group.pinned is None and group.size == EXPERTS
    members = {member.tensor for member in group.members}
    assert members == {"up", "down", "bias", "router.weight", "router.bias"}
    plan = sc.plan(graph, sc.score(graph, model), keep={"up[0]": count / EXPERTS})
    kept = plan.keep["up[0]"]
    small = sc.cut(model, plan)
    assert small.router.out_features == len(kept) == count
    torch.testing.assert_close(small.bias, model.bias[list(kept)])
    dtype = torch.float64 if make is Experts else None  # grouped products know no float64
    proof = sc.verify(model, small, plan, rows(), graph=graph, dtype=dtype)
    assert "up[0]" in proof.corrected
    assert proof.groups_checked == len(plan.keep)


def test_the_cut_router_chooses_among_those_that_stay() -> None:
    model = Experts().eval()
    graph = sc.trace(model, rows())
    scores = {"up[0]": torch.tensor([1.0, 0, 1, 0, 1, 1])}
    small: Any = sc.cut(model, sc.plan(graph, scores, keep={"up[0]": 4 / 6}))
    x = model.stem(rows())
    logits = model.router(x)
    logits[:, [1, 3]] = -torch.inf
    weights, chosen = logits.softmax(-1).topk(CHOSEN)
    weights = weights / weights.sum(-1, keepdim=True)
    expected = model.head(x + model.use(x, weights, chosen))
    torch.testing.assert_close(small(rows()), expected)


def test_as_many_stay_as_are_chosen() -> None:
    model = Experts().eval()
    graph = sc.trace(model, rows())
    plan = sc.plan(graph, sc.score(graph, model), keep=0.1, groups="up[[]0]")
    assert len(plan.keep["up[0]"]) == CHOSEN
    assert any("the largest 2" in note for note in plan.notes)


class Compared(Experts):
    """Numbers that a comparison sees are not followed."""

    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        weights = weights * (chosen != 3)
        return super().use(x, weights, chosen)


class OneHot(Experts):
    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        spread = torch.zeros(x.shape[0], EXPERTS).scatter(1, chosen, weights)
        hidden = torch.einsum("nc,ech->neh", x, self.up).relu()
        return torch.einsum("neh,ehc,ne->nc", hidden, self.down, spread)


class Returned(Experts):
    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        weights, chosen = self.router(x).topk(CHOSEN)
        return self.head(x + self.use(x, weights, chosen)), chosen


class AsMask(Experts):
    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        return super().use(x, weights * chosen.bool(), chosen)


class Shifted(Experts):
    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        return super().use(x, weights, (chosen + 1) % EXPERTS)


class Looped(Experts):
    """Each expert in turn, by its number."""

    def use(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number in range(EXPERTS):
            row, place = torch.where(chosen == number)
            hidden = (x[row] @ self.up[number]).relu()
            out = out.index_add(0, row, (hidden @ self.down[number]) * weights[row, place, None])
        return out


@pytest.mark.parametrize("make", [Compared, OneHot, Returned, AsMask, Shifted, Looped])
def test_what_is_not_followed_pins_the_router(make: type[Experts]) -> None:
    model = make().eval()
    graph = sc.trace(model, rows())
    router = [g for g in graph.groups if any(m.tensor == "router.bias" for m in g.members)]
    assert [g.pinned is not None for g in router] == [True]
    plan = sc.plan(graph, sc.score(graph, model), keep=0.5)
    sc.verify(model, sc.cut(model, plan), plan, rows(), graph=graph, dtype=torch.float64)
