"""The knapsack selector: by hand, against trying everything, on stepped costs, under two limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from secateur.core.cost import Cost
from secateur.core.dims import Counts
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.cost.counted import CostModel
from secateur.select.plan import plan


def lost(scores: Scores, found: Mapping[str, int]) -> float:
    """What the units that went were worth; the lowest went."""
    return sum(
        float(values.sort().values[: len(values) - found.get(id, len(values))].sum())
        for id, values in scores.items()
    )


def kept(found: Plan) -> dict[str, int]:
    return {id: len(units) for id, units in found.keep.items()}


def best_by_trying(graph: Graph, scores: Scores, allowed: float) -> float:
    """The least loss of all counts whose MACs are allowed."""
    costs = CostModel(graph)
    free = graph.free
    worth: dict[tuple[int, ...], float] = {}
    for counts in product(*(range(1, group.size + 1) for group in free)):
        if costs.macs(dict(zip([g.axis.index for g in free], counts, strict=True))) <= allowed:
            worth[counts] = lost(scores, dict(zip([g.id for g in free], counts, strict=True)))
    return min(worth.values())


def steep(graph: Graph, seed: int) -> Scores:
    """Convex losses of very different heights."""
    generator = torch.Generator().manual_seed(seed)
    heights = torch.rand(len(graph.free), generator=generator) ** 3
    return {
        group.id: height * torch.arange(1.0, group.size + 1).double() ** 1.5
        for group, height in zip(graph.free, heights.tolist(), strict=True)
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [20, 45, 70])
def test_near_the_best_of_all_counts(make_chain, share: int, seed: int) -> None:
    graph = make_chain([3, 14, 10, 16, 4])
    scores = steep(graph, seed)
    found = plan(graph, scores, budget=f"macs={share}%", selector="knapsack", normalise="none")
    best = best_by_trying(graph, scores, share / 100 * found.before.macs)
    assert best <= lost(scores, kept(found)) <= 1.12 * best


def test_by_hand(make_chain) -> None:
    # 4 -> 6 -> 2 -> 8: a unit of w1 costs 6 MACs, one of w2 costs 14; their units are worth as much
    graph = make_chain([4, 6, 2, 8])
    scores = {"w1": torch.ones(6), "w2": torch.ones(2)}
    found = plan(graph, scores, budget="macs=75%", selector="knapsack")
    assert found.before.macs == 24 + 12 + 16
    assert kept(found) == {"w2": 1}  # the wider saving for the same loss
    scores["w2"] = torch.full((2,), 9.0)
    assert kept(plan(graph, scores, budget="macs=75%", selector="knapsack", normalise="none")) == {
        "w1": 3
    }


class Stepped(CostModel):
    """Milliseconds as a device has them that computes sixteen units at once."""

    def cost(self, counts: Counts) -> Cost:
        whole = {k: -(-count // 16) * 16 for k, count in counts.items()}
        return replace(super().cost(counts), latency_ms=float(self.macs(whole)))


def test_steps_of_the_device_are_used(make_chain, make_scores) -> None:
    graph = make_chain([16, 96, 64, 128, 80, 96, 16])
    scores = make_scores(graph)
    how = {"budget": "latency=40%", "costs": Stepped(graph), "normalise": "none"}
    found = plan(graph, scores, selector="knapsack", **how)
    assert found.keep and all(count % 16 == 0 for count in kept(found).values())
    plain = plan(graph, scores, selector="global", **how)
    assert lost(scores, kept(found)) < lost(scores, kept(plain))


def test_two_limits_and_less_lost_than_by_others(make_chain) -> None:
    graph = make_chain([3, 32, 32, 48, 32, 5])
    scores: dict[str, Tensor] = dict(steep(graph, 1))
    losses = {}
    for selector in ("uniform", "global", "knapsack"):
        found = plan(
            graph,
            scores,
            budget="macs=50%,memory=70%,params=60%",
            selector=selector,
            normalise="none",
        )
        assert found.after.macs <= 0.5 * found.before.macs
        assert found.after.params <= 0.6 * found.before.params
        assert (found.after.peak_memory_bytes or 0) <= 0.7 * (found.before.peak_memory_bytes or 0)
        losses[selector] = lost(scores, kept(found))
    assert losses["knapsack"] < min(losses["uniform"], losses["global"])


def test_without_a_budget_the_share_counts_units(make_chain, make_scores) -> None:
    graph = make_chain([3, 16, 32, 5])
    found = plan(graph, make_scores(graph), keep=0.5, selector="knapsack")
    assert abs(sum(kept(found).values()) - 24) <= 2
