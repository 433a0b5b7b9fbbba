"""Budgets of energy: as time where watts are stated, counted where there is a counter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.core.budget import Budget
from secateur.cost.energy import Energy
from secateur.cost.latency import Latency
from secateur.search import energy_within
from secateur.search.energy_within import energy_limit, plan_within_energy
from secateur.search.timing import Device
from secateur.search.within import Within, is_measured

MODEL = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
EXAMPLE = torch.zeros(4, 8)


def latency(ms: float) -> Latency:
    return Latency((ms,) * 5, 1, 4, 1, "cpu", "float32", "x")


class Search:
    """In place of `plan_within`: finds exactly the latency that it is asked for."""

    def __init__(self) -> None:
        graph = sc.trace(MODEL, EXAMPLE)
        self.plan = sc.plan(graph, sc.score(graph, MODEL), keep=0.5)
        self.asked: list[str] = []

    def __call__(self, budget: Budget) -> Within:
        self.asked.append(str(budget))
        (share,) = (limit.fraction for limit in budget.limits if limit.metric == "latency")
        assert share is not None
        plan = replace(self.plan, settings={"budget": str(budget)})
        return Within(plan, MODEL, latency(10.0), latency(10.0 * share), share)


def test_half_the_energy_is_half_the_time_under_stated_watts():
    search = Search()
    found = plan_within_energy(
        search,
        MODEL,
        EXAMPLE,
        budget=Budget.parse("energy=50%,macs=60%"),
        device=Device(),
        watts=20,
    )
    assert search.asked == ["macs=60%,latency=50%"]
    assert found.energy is not None and found.energy[1].joules == pytest.approx(0.1)
    assert found.plan.before.energy_j == pytest.approx(0.2)
    assert found.plan.after.energy_j == pytest.approx(0.1)
    assert found.plan.settings["budget"] == "energy=50%,macs=60%"
    assert found.plan.settings["watts"] == 20
    assert "energy estimated (20 W as given" in found.plan.notes[-1]


def test_a_tighter_latency_goes_first():
    search = Search()
    budget = Budget.parse("energy=50%,latency=30%")
    plan_within_energy(search, MODEL, EXAMPLE, budget=budget, device=Device(), watts=20)
    assert search.asked == ["latency=30%"]


def count(monkeypatch: pytest.MonkeyPatch, rest: float) -> None:
    """Joules are time x 10 W, and `rest` at any width; found models take what was asked for."""

    def counted(models: dict[str, Any], *args: Any, **how: Any) -> dict[str, Energy]:
        asked = float(search_of[0].asked[-1].removeprefix("latency=").removesuffix("%")) / 100
        share = rest + (1.0 - rest) * asked
        return {
            "dense": Energy((0.1,), 4, "counted", False),
            "pruned": Energy((0.1 * share,), 4, "counted", False),
        }

    monkeypatch.setattr(energy_within, "measure_energy", counted)
    monkeypatch.setattr(energy_within, "needed_counter", lambda device: None)


search_of: list[Search] = [Search()]


def test_what_is_counted_mends_the_latency(monkeypatch: pytest.MonkeyPatch):
    search_of[0] = search = Search()
    count(monkeypatch, rest=0.2)
    budget = Budget.parse("energy=60%")
    found = plan_within_energy(search, MODEL, EXAMPLE, budget=budget, device=Device())
    assert len(search.asked) > 1  # 60 % of the time is 68 % of the energy
    assert found.energy is not None
    assert 0.55 <= found.energy[1].joules / found.energy[0].joules <= 0.6 * 1.05
    assert "energy measured (counted, batch 4)" in found.plan.notes[-1]
    assert "watts" not in found.plan.settings


def test_what_stays_at_any_width_is_an_error(monkeypatch: pytest.MonkeyPatch):
    search_of[0] = search = Search()
    count(monkeypatch, rest=0.9)
    with pytest.raises(sc.BudgetError, match=r"energy=30% was not met: .* ask for energy=9\d%"):
        plan_within_energy(
            search, MODEL, EXAMPLE, budget=Budget.parse("energy=30%"), device=Device()
        )


def test_nothing_is_measured_before_there_is_a_counter_or_watts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("secateur.cost.energy.find_counter", lambda device: None)
    graph = sc.trace(MODEL, EXAMPLE)
    scores = sc.score(graph, MODEL)
    with pytest.raises(ValueError, match=r"watts=45"):
        sc.plan_within(MODEL, graph, scores, EXAMPLE, budget="energy=50%")
    with pytest.raises(sc.BudgetError, match=r"plan_within\(\) does that, with watts=45"):
        sc.plan(graph, scores, budget="energy=50%")


def test_which_budgets_are_measured():
    assert is_measured("energy=50%") and is_measured("macs=50%,latency=3ms")
    assert not is_measured("memory=50%,size=1MB")
    assert energy_limit(Budget.parse("latency=50%")) is None
