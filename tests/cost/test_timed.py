"""Latency predicted from what modules take at a few widths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.cost.timed import LatencyModel, Sample, TimedCosts, Timings
from secateur.search.timing import left_out_error


def graph_of() -> sc.Graph:
    model = nn.Sequential(
        nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    return sc.trace(model, torch.zeros(2, 8))


def made_up(graph: sc.Graph, widths: tuple[float, ...]) -> Timings:
    """A device on which each layer takes a microsecond, and one for every thousand products."""
    a, b = (graph.group(f"{path}.weight[0]").axis.index for path in ("0", "2"))
    samples = []
    for width in widths:
        first, second = round(40 * width), round(20 * width)
        products = {"0": 2 * 8 * first, "2": 2 * first * second, "4": 2 * second * 3}
        own = {path: 1e-3 * (1 + n / 1000) for path, n in products.items()} | {"1": 2e-3}
        samples.append(Sample({a: first, b: second}, sum(own.values()), own))
    return Timings(graph.hash, tuple(samples), {"runtime": "made up"})


def test_times_that_follow_the_work_are_found_again_at_other_widths():
    graph = graph_of()
    latency = LatencyModel(graph, made_up(graph, (1.0, 0.5, 0.2)))
    for other in made_up(graph, (0.9, 0.35, 0.1)).samples:
        assert latency.latency_ms(other.counts) == pytest.approx(other.whole_ms, rel=0.02)
    uneven = {**other.counts, graph.group("0.weight[0]").axis.index: 40}
    products = 2 * 8 * 40 + 2 * 40 * 2 + 2 * 2 * 3
    assert latency.latency_ms(uneven) == pytest.approx(5e-3 + 1e-6 * products, rel=0.02)


def test_more_work_never_takes_less_time():
    graph = graph_of()
    timings = made_up(graph, (1.0, 0.75, 0.5, 0.25))
    noisy = [
        replace(s, own_ms={**s.own_ms, "2": ms})
        for s, ms in zip(timings.samples, (2e-3, 5e-3, 1e-3, 4e-3), strict=True)
    ]
    latency = LatencyModel(graph, replace(timings, samples=tuple(noisy)))
    index = graph.group("2.weight[0]").axis.index
    found = [latency.latency_ms({index: n}) for n in range(1, 21)]
    assert found == sorted(found)


def test_the_error_is_that_of_samples_left_out():
    graph = graph_of()
    timings = made_up(graph, (1.0, 0.8, 0.6, 0.4, 0.2))
    assert left_out_error(graph, timings) < 0.02
    wrong = [
        replace(s, own_ms={p: 2 * ms for p, ms in s.own_ms.items()}, whole_ms=2 * s.whole_ms)
        if k == 2
        else s
        for k, s in enumerate(timings.samples)
    ]
    assert left_out_error(graph, replace(timings, samples=tuple(wrong))) > 0.05


def test_json_and_back():
    graph = graph_of()
    timings = replace(made_up(graph, (1.0, 0.5)), error=0.01)
    assert Timings.from_json(timings.to_json()) == timings
    with pytest.raises(ValueError, match="not timings of a device"):
        Timings.from_json('{"samples": [{}]}')


def test_a_plan_meets_a_predicted_latency():
    graph = graph_of()
    costs = TimedCosts(graph, made_up(graph, (1.0, 0.75, 0.5, 0.25, 0.1)))
    scores = {group.id: torch.arange(float(group.size)) for group in graph.free}
    plan = sc.plan(graph, scores, budget="latency=80%", costs=costs)
    share = plan.after.latency_ms / plan.before.latency_ms
    assert 0.75 < share <= 0.8
    assert plan.after.macs < plan.before.macs
    slower = sc.plan(
        graph,
        scores,
        budget="latency=80%",
        costs=TimedCosts(graph, made_up(graph, (1.0, 0.75, 0.5, 0.25, 0.1)), correction=1.1),
    )
    assert slower.after.macs < plan.after.macs


def test_what_cannot_be_met_or_is_not_measured_is_said():
    graph = graph_of()
    scores = {group.id: torch.arange(float(group.size)) for group in graph.free}
    costs = TimedCosts(graph, made_up(graph, (1.0, 0.5)))
    with pytest.raises(sc.BudgetError, match=r"the least that can remain is latency=\d"):
        sc.plan(graph, scores, budget="latency=10%", costs=costs)
    with pytest.raises(sc.BudgetError, match=r"prune\(\) and plan_within\(\)"):
        sc.plan(graph, scores, budget="latency=50%")
    with pytest.raises(sc.PlanMismatchError, match="another model"):
        TimedCosts(graph, replace(costs._latency.timings, graph_hash="0"))
