"""Allocation by trying: budgets met, the cheapest group first, and never twice the same."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc
from secateur.search.adapt import Adapter, fitted_loss
from secateur.select.constraints import Constraints


class Two(nn.Module):
    """Two hidden layers side by side; the outputs hang on the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(32, 3)
        with torch.no_grad():
            self.out.weight[:, 16:] *= 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.a(x).relu(), self.b(x).relu()], 1))


@pytest.fixture
def subject() -> tuple[nn.Module, sc.Graph, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = Two()
    graph = sc.trace(model, torch.randn(2, 8))
    return model, graph, dict(sc.score(graph, model))


def judge(model: nn.Module) -> tuple[list[sc.Plan], object]:
    torch.manual_seed(1)
    x = torch.randn(64, 8)
    batches = [(part, model(part).argmax(1)) for part in x.split(16)]
    seen: list[sc.Plan] = []
    loss = fitted_loss(model, data=batches, held=batches, loss_fn=F.cross_entropy)

    def told(plan: sc.Plan) -> float:
        seen.append(plan)
        return loss(plan)

    return seen, told


def test_the_group_that_matters_less_gives_way_and_the_budget_is_met(subject):
    model, graph, scores = subject
    seen, told = judge(model)
    steps: list[tuple[str, float]] = []
    adapter = Adapter(graph, scores, told, tell=lambda ids, left, loss: steps.append((ids, left)))
    plan = adapter.plan(budget="macs=60%")
    assert 0.5 < plan.after.macs / plan.before.macs <= 0.6
    kept = {id: len(units) for id, units in plan.keep.items()}
    assert all(id.startswith("b.") for id in kept), kept
    assert plan.settings["allocation"] == "adapt"
    assert [left for _, left in steps] == sorted((left for _, left in steps), reverse=True)
    small = sc.cut(model, plan)
    assert sc.verify(model, small, plan, torch.randn(2, 8), graph=graph).groups_checked
    # a group that was dear at first is not tried again while the other stays cheaper
    assert len(seen) < 2 * len(steps) + 2


def test_what_was_tried_for_one_budget_is_known_for_the_next(subject):
    model, graph, scores = subject
    seen, told = judge(model)
    adapter = Adapter(graph, scores, told)
    first = adapter.plan(budget="macs=50%")
    count = len(seen)
    assert adapter.plan(budget="macs=50%") == first and len(seen) == count
    further = adapter.plan(budget="macs=40%")
    assert further.after.macs < first.after.macs
    assert set(adapter.tried) and len(adapter.tried) == len(seen)


def test_several_limits_hold_together(subject):
    model, graph, scores = subject
    plan = Adapter(graph, scores, judge(model)[1]).plan(budget="macs=70%,params=55%")
    assert plan.after.macs <= 0.7 * plan.before.macs
    assert plan.after.params <= 0.55 * plan.before.params


def test_a_loss_that_is_not_a_number_is_never_chosen_while_there_is_another(subject):
    _, graph, scores = subject

    def told(plan: sc.Plan) -> float:
        gone = [id for id, units in plan.keep.items() if len(units) < 16]
        return math.nan if any(id.startswith("b.") for id in gone) else 0.1

    plan = Adapter(graph, scores, told).plan(budget="macs=80%")
    assert [id.split(".")[0] for id in plan.keep] == ["a"]


def test_what_the_rules_do_not_allow_is_an_error_and_nothing_to_do_is_no_cut(subject):
    model, graph, scores = subject
    adapter = Adapter(graph, scores, judge(model)[1], Constraints(min_units=12))
    with pytest.raises(sc.BudgetError, match="min_units=12"):
        adapter.plan(budget="macs=20%")
    assert Adapter(graph, scores, judge(model)[1]).plan(budget="macs=100%").keep == {}


def test_candidates_are_trained_where_that_is_asked_for(subject):
    model, graph, scores = subject
    trained: list[nn.Module] = []
    x = torch.randn(8, 8)
    loss = fitted_loss(
        model, data=[(x, x)] * 2, held=[(x, torch.zeros(8, dtype=torch.int64))],
        loss_fn=F.cross_entropy, recover=trained.append,
    )  # fmt: skip
    plan = sc.plan(graph, scores, budget="macs=50%")
    assert loss(plan) > 0 and trained[0] is not model
    assert sum(p.numel() for p in trained[0].parameters()) == plan.after.params
