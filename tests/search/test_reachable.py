"""What is reachable is told from measurements: here from a clock that goes by arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.core.errors import BudgetError
from secateur.cost.counted import cost
from secateur.cost.latency import Latency
from secateur.cost.runtimes.prepared import Prepared
from secateur.cost.timed import Sample, Timings
from secateur.search import auto_subject
from secateur.search import reachable as module
from secateur.search.auto_values import AutoData, AutoSettings
from secateur.search.reachable import Reachable, reachable, share_of_zeros
from secateur.search.timing import Device
from secateur.search.where_time_goes import where_time_goes
from secateur.select.constraints import Constraints

CALL_MS = 0.5
"""What each of the three layers takes besides a millisecond for a thousand multiplications."""
CONDITIONS = {"runtime": "eager", "batch": "1", "threads": "2", "hardware": "Clockwork"}


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 10)).eval()


def own(model: nn.Module, *args: Any, **how: Any) -> dict[str, float]:
    work = {n: m.weight.numel() / 1e3 for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return {name: CALL_MS + ms for name, ms in work.items()} | {"1": CALL_MS}


def clock(models: Any, *args: Any, **how: Any) -> dict[str, Latency]:
    modules = {n: m.model if isinstance(m, Prepared) else m for n, m in models.items()}
    taken = {name: (sum(own(each).values()),) * 5 for name, each in modules.items()}
    return {name: Latency(ms, 1, 1, 2, "cpu", "float32", "Clockwork") for name, ms in taken.items()}


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> None:
    def timings(model: nn.Module, graph: sc.Graph, *args: Any, **how: Any) -> Timings:
        plans = [sc.plan(graph, sc.score(graph, model), keep=share) for share in (0.6, 0.2)]
        models = [(model, {}), *((sc.cut(model, plan), plan.counts()) for plan in plans)]
        samples = [Sample(counts, sum(own(m).values()), own(m)) for m, counts in models]
        return Timings(graph.hash, tuple(samples), CONDITIONS, 0.01)

    monkeypatch.setattr(module, "dense_timings", timings)
    monkeypatch.setattr("secateur.search.timing.measure_latency", clock)
    monkeypatch.setattr(module, "own_times", own)


def found(**how: Any) -> Reachable:
    model, x = layers(), torch.zeros(1, 10)
    return reachable(model, sc.trace(model, x), x, **how)


def test_calls_work_and_the_least_by_hand(clockwork: None):
    can = found()
    # 2 ms of work and 1.5 of calls; one unit of a hundred leaves 0.02 ms of work
    assert can.dense_ms == pytest.approx(3.5)
    assert can.least == pytest.approx(1.52 / 3.5)
    assert can.half_macs == pytest.approx(2.5 / 3.5)
    # the ReLU's work shrinks as well, and what it takes does not
    assert (can.shares.work, can.shares.calls) == (pytest.approx(2 / 3.5), pytest.approx(1.5 / 3.5))
    assert can.shares.unchanged == 0.0
    assert Reachable.from_json(json.loads(json.dumps(can.to_json()))) == can
    with_rules = found(constraints=Constraints(min_units=50))
    assert with_rules.least == pytest.approx(2.5 / 3.5)


def test_what_calls_bind_is_told_in_words(clockwork: None):
    can = found()
    said = " ".join(can.lines())
    assert "down to 43% of 3.5 ms" in said and "57% is work" in said and "43% calls" in said
    assert can.bound_by_calls and "removing units gains little" in said
    assert "fewer calls (onnxruntime, compile) or a larger batch" in said
    served = replace(can, least=0.1, conditions={**CONDITIONS, "runtime": "onnxruntime"})
    assert not served.bound_by_calls and len(served.lines()) == 2


@pytest.mark.parametrize("budget", ["latency=40%", "latency=1.4ms", "macs=50%,latency=10%"])
def test_a_latency_out_of_reach_is_an_error_that_names_the_least(clockwork: None, budget: str):
    with pytest.raises(BudgetError, match=r"measured 43\.4% of .* 3\.5 ms .*ask for latency=47%"):
        found().check(budget)


def test_what_is_within_reach_is_none(clockwork: None):
    can = found()
    for budget in ("latency=47%", "latency=2ms", "macs=1%"):
        can.check(budget)
        assert can.fault(budget) is None


def test_zeros_that_nothing_skips_are_told(clockwork: None):
    model, x = layers(), torch.zeros(1, 10)
    with torch.no_grad():
        model[0].weight[:80] = 0.0
    assert share_of_zeros(model) == pytest.approx(0.4)
    can = reachable(model, sc.trace(model, x), x)
    assert can.zeros_time == 1.0
    assert "40% of the weights are zeros" in can.lines()[-1]
    assert "takes 100% of what it takes with other numbers" in can.lines()[-1]
    assert found().zeros_time is None


def test_where_the_time_goes_is_scaled_to_the_whole():
    model, x = layers(), torch.zeros(1, 10)
    small = sc.prune(model, x, budget="macs=50%").model
    where = where_time_goes(model, small, x, device=Device(threads=1), whole_ms=(8.0, 6.0))
    assert sum(row.before_ms for row in where.modules) == pytest.approx(8.0)
    assert sum(row.after_ms for row in where.modules) == pytest.approx(6.0)
    after = [row.after_ms for row in where.modules]
    assert after == sorted(after, reverse=True)
    assert {row.path for row in where.top} == {"", "0", "1", "2"}


def test_steps_are_predicted_down_to_the_smallest_model(
    clockwork: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Timed widths end above the smallest, as where a device likes multiples of sixteen."""
    model, x = layers(), torch.zeros(1, 10)
    graph, can = sc.trace(model, x), found()
    hidden = next(group.axis.index for group in graph.groups if group.size == 100)

    def flat(*args: Any, **how: Any) -> Timings:
        samples = tuple(Sample(counts, 3.5, own(model)) for counts in ({}, {hidden: 60}))
        return Timings(graph.hash, samples, CONDITIONS, 0.01)

    monkeypatch.setattr(auto_subject, "dense_timings", flat)
    subject = auto_subject.Subject(
        dense=model,
        graph=graph,
        example=x,
        data=AutoData(train=[], validate=lambda model: 1.0),
        settings=AutoSettings(target="latency=50%", max_drop=0.1),
        cost=cost(graph),
        target={},
        calibration=[],
        held=[],
        timings=tmp_path,
    )
    floor = {hidden: 1}
    assert subject.costs(graph).cost(floor).latency_ms == pytest.approx(3.5)
    known = replace(subject, smallest=can.smallest)
    assert known.costs(graph).cost(floor).latency_ms == pytest.approx(1.52)
