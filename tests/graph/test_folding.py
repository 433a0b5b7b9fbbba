"""Scales made of a size stay as they were: a weight absorbs the change, or the axis is flagged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc

HEADS, WIDTH = 4, 8


class Attention(nn.Module):
    """`split` says how query, key and value are made, `scaled` how the scores are scaled."""

    def __init__(self, split: str, scaled: str) -> None:
        super().__init__()
        self.split, self.scaled = split, scaled
        self.qkv, self.out = nn.Linear(6, 3 * HEADS * WIDTH), nn.Linear(HEADS * WIDTH, 6)
        self.heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        y = self.qkv(x)
        if self.split == "unbind":
            q, k, v = y.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.split == "index":
            y = y.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = y[0], y[1], y[2]
        else:
            parts = y.chunk(3, dim=-1)
            q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in parts)
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.scaled == "default":
            return F.scaled_dot_product_attention(q, k, v)
        if self.scaled == "query":
            return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
        if self.scaled == "root":
            return ((q @ k.transpose(-1, -2)) / math.sqrt(q.size(-1))).softmax(-1) @ v
        if self.scaled == "key as well":  # the query is read twice, so the key has to absorb it
            return F.scaled_dot_product_attention(q, k, v) + q
        assert self.scaled == "given"
        return F.scaled_dot_product_attention(q, k, v, scale=2 / math.sqrt(q.shape[-1]))


@pytest.mark.parametrize("split", ["unbind", "index", "chunk"])
@pytest.mark.parametrize("scaled", ["default", "query", "root", "given", "key as well"])
def test_a_cut_through_the_head_width_is_exact(split: str, scaled: str) -> None:
    model, x = Attention(split, scaled), torch.randn(2, 5, 6)
    graph = sc.trace(model, x)
    assert not any("scaled" in group.flags for group in graph.groups)
    (scale,) = graph.scales
    first = 1 if scaled == "key as well" else 0
    rows = [(first * HEADS * WIDTH, (first + 1) * HEADS * WIDTH)]
    assert {r.tensor for r in scale.weights} == {"qkv.weight", "qkv.bias"}
    assert all(list(r.ranges) == rows for r in scale.weights)
    plan = sc.plan(graph, sc.score(graph, model, criterion="random"), keep=0.5)
    assert len(plan.exact) == len(plan.keep) > 0
    assert sc.Plan.from_json(plan.to_json()) == plan
    assert [fold.factor for fold in plan.folds] == [pytest.approx(math.sqrt(0.5))] * 2
    proof = sc.verify(model, sc.cut(model, plan), plan, x, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error < 1e-12
    assert proof.corrected == {}
    sc.verify(model, sc.cut(model, plan), plan, x, graph=graph)


def test_where_query_and_key_are_read_elsewhere_the_width_is_flagged() -> None:
    """Query and key are both read elsewhere: no weight can absorb the scale, so it is flagged."""

    class Both(Attention):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v) + q + k

    model, x = Both("chunk", ""), torch.randn(2, 5, 6)
    graph = sc.trace(model, x)
    assert graph.scales == ()
    assert any("scaled" in group.flags for group in graph.groups)
    plan = sc.plan(graph, sc.score(graph, model, criterion="random"), keep=0.5)
    assert plan.folds == () and plan.inexact
    proof = sc.verify(model, sc.cut(model, plan), plan, x, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error < 1e-12 and proof.corrected


def test_a_returned_query_is_not_scaled() -> None:
    class Returned(Attention):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return self.out(F.scaled_dot_product_attention(q, k, v)), k

    model, x = Returned("", ""), torch.randn(2, 5, 6)
    (scale,) = sc.trace(model, x).scales
    assert {r.ranges for r in scale.weights} == {((0, HEADS * WIDTH),)}


class Tied(nn.Module):
    """An embedding scaled by the root of its width, tied to the output's weight or not."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 16), nn.Linear(16, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.embed(ids)
        out: Tensor = self.head(torch.tanh(x * x.shape[-1] ** 0.5))
        return out


@pytest.mark.parametrize("tied", [False, True])
def test_a_weight_with_a_second_reader_is_left_alone(tied: bool) -> None:
    model, ids = Tied(tied), torch.arange(5)[None]
    graph = sc.trace(model, ids)
    (group,) = graph.free
    assert bool(graph.scales) != tied
    assert ("scaled" in group.flags) == tied
    plan = sc.plan(graph, sc.score(graph, model, criterion="l2"), keep=0.5)
    proof = sc.verify(model, sc.cut(model, plan), plan, ids, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error < 1e-12


def test_a_norm_of_the_query_absorbs_the_scale() -> None:
    class Normed(Attention):
        def __init__(self) -> None:
            super().__init__("unbind", "default")
            self.q_norm, self.k_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cos, sin = torch.cos(torch.arange(5.0))[:, None], torch.sin(torch.arange(5.0))[:, None]
            q, k = self.q_norm(q), self.k_norm(k)
            q, k = (t * cos + torch.cat([-t[..., 4:], t[..., :4]], -1) * sin for t in (q, k))
            return F.scaled_dot_product_attention(q, k, v)

    model, x = Normed(), torch.randn(2, 5, 6)
    (scale,) = sc.trace(model, x).scales
    assert {r.tensor for r in scale.weights} == {"q_norm.weight", "q_norm.bias"}


def test_a_number_that_cannot_be_followed_flags() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            y = y * y.shape[-1] ** -0.5 + float(y.shape[-1])
            out: Tensor = self.b(y)
            return out

    (group,) = sc.trace(Shifted(), torch.randn(2, 4)).free
    assert "scaled" in group.flags
