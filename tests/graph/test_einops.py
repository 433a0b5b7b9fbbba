"""einops keeps what it computed for equal sizes: that is not taken for this model's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc

einops = pytest.importorskip("einops", reason="pip install einops")


class Heads(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(8, 3 * 8 * heads), nn.Linear(8 * heads, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = einops.rearrange(self.qkv(x), "b n (t h d) -> t b h n d", t=3, h=self.heads)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(einops.rearrange(y, "b h n d -> b n (h d)"))
        return out


def test_a_model_that_ran_before_is_traced_as_one_that_did_not() -> None:
    model, x = nn.Sequential(Heads(4), nn.ReLU(), Heads(4)).eval(), torch.randn(1, 5, 8)
    model(x)
    graph = sc.trace(model, x)
    sizes = [group.size for group in graph.free]
    assert sizes.count(4) == 2, [(group.id, group.pinned) for group in graph.groups]
    scores = sc.score(graph, model, criterion="random")
    heads = [group.id for group in graph.free if group.size == 4]
    plan = sc.plan(graph, scores, keep={heads[0]: 0.5, heads[1]: 0.25})
    small = sc.cut(model, plan)
    assert (small[0].heads, small[2].heads) == (2, 1)
    proof = sc.verify(model, small, plan, x, graph=graph, dtype=torch.float64)
    assert proof.groups_checked == 2 and proof.max_rel_error < 1e-12
