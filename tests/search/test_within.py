"""Budgets of measured latency: the device is timed, candidates are measured, predictions mended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.cost.clocks import own_times
from secateur.cost.latency import Latency
from secateur.cost.runtimes.prepared import Prepared
from secateur.cost.timed import Timings
from secateur.search import within
from secateur.search.timing import Device, cache_folder, time_device


class Slow(nn.Module):
    """A layer that is worth timing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256))
        self.head = nn.Linear(256, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


def subject() -> tuple[nn.Module, torch.Tensor, sc.Graph]:
    torch.manual_seed(0)
    model, x = Slow().eval(), torch.randn(8, 64)
    return model, x, sc.trace(model, x)


def test_each_module_is_timed_by_itself():
    model, x, _ = subject()
    own = own_times(model, x)
    assert set(own) == {"", "body", "body.0", "body.1", "body.2", "head"}
    assert all(ms >= 0 for ms in own.values())
    assert own["body.2"] > own["body"]  # a container's own time is next to nothing
    assert nn.Module._call_impl.__name__ == "_call_impl"


def test_timings_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, x, graph = subject()
    device = Device(threads=1)
    first = time_device(model, graph, x, device=device, widths=(0.6, 0.3), cache=tmp_path)
    assert [len(sample.counts) for sample in first.samples] == [0, 2, 2]
    for sample in first.samples:
        assert sum(sample.own_ms.values()) == pytest.approx(sample.whole_ms)
    assert first.conditions["batch"] == "8" and first.error is not None
    (kept,) = tmp_path.iterdir()
    assert Timings.from_json(kept.read_text()) == first
    monkeypatch.setattr("secateur.search.timing.own_times", None)  # would fail if it measured
    assert time_device(model, graph, x, device=device, widths=(0.6, 0.3), cache=tmp_path) == first


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SECATEUR_CACHE")
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "secateur"


class Clockwork:
    """In place of measuring: a forward takes what its multiply-accumulates say, times `factor`."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0

    def __call__(self, models: Any, *args: Any, **how: Any) -> dict[str, Latency]:
        self.calls += 1
        found = {}
        for name, given in models.items():
            model = given.model if isinstance(given, Prepared) else given
            macs = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
            ms = macs / 1e4 * (1.0 if name in ("dense", "whole") else self.factor)
            found[name] = Latency((ms,) * 5, 1, 8, 1, "cpu", "float32", "clockwork")
        return found


class Stepped(Clockwork):
    """Widths that are no multiples of sixteen take as long as the next that is."""

    def __call__(self, models: Any, *args: Any, **how: Any) -> dict[str, Latency]:
        padded = {}
        for name, given in models.items():
            model = given.model if isinstance(given, Prepared) else given
            sizes = [m.weight.shape for m in model.modules() if isinstance(m, nn.Linear)]
            whole = [(-(-rows // 16) * 16, -(-columns // 16) * 16) for rows, columns in sizes]
            padded[name] = nn.Sequential(*(nn.Linear(columns, rows) for rows, columns in whole))
        return super().__call__(padded)


def clocks(model: nn.Module, *args: Any, **how: Any) -> dict[str, float]:
    names = {id(m): path for path, m in model.named_modules()}
    return {names[id(m)]: m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)}


def stop_the_clock(
    monkeypatch: pytest.MonkeyPatch, device: Clockwork, *, timed: Clockwork | None = None
) -> None:
    """Nothing is measured: candidates take what `device` says, the timed widths `timed`."""
    monkeypatch.setattr("secateur.search.timing.measure_latency", timed or device)
    monkeypatch.setattr("secateur.search.timing.own_times", clocks)
    monkeypatch.setattr(within, "_timed", device)


@pytest.mark.parametrize("factor", [1.0, 1.2, 0.85])
@pytest.mark.parametrize("share", [70, 40])
def test_predictions_are_mended_by_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, factor: float, share: int
):
    """The timed widths say one thing, whole candidates another."""
    model, x, graph = subject()
    scores = sc.score(graph, model)
    measure = Clockwork(factor)
    stop_the_clock(monkeypatch, measure, timed=Clockwork(1.0))
    found = within.plan_within(model, graph, scores, x, budget=f"latency={share}%")
    assert share / 100 * (1 - within.CLOSE) <= found.share <= share / 100
    assert found.plan.after.latency_ms == pytest.approx(found.pruned.median_ms)
    assert "latency measured" in found.plan.notes[-1]
    assert found.candidates == measure.calls - 2  # the dense model, and the last for longer
    assert found.candidates == 1 if factor == 1.0 else 1 < found.candidates <= within.TRIES


@pytest.mark.parametrize("device", [Stepped(1.0), Clockwork(1.0)])
def test_widths_that_the_device_likes_are_taken_where_it_has_any(
    monkeypatch: pytest.MonkeyPatch, device: Clockwork
):
    model, x, graph = subject()
    scores = sc.score(graph, model)
    stop_the_clock(monkeypatch, device)
    found = within.plan_within(model, graph, scores, x, budget="latency=45%")
    widths = [len(units) for units in found.plan.keep.values()]
    assert all(width % 16 == 0 for width in widths) == isinstance(device, Stepped)
    asked = within.plan_within(model, graph, scores, x, budget="latency=45%", multiple_of=4)
    assert all(len(units) % 4 == 0 for units in asked.plan.keep.values())


def test_an_absolute_latency_and_a_second_limit(monkeypatch: pytest.MonkeyPatch):
    model, x, graph = subject()
    scores = sc.score(graph, model)
    stop_the_clock(monkeypatch, Clockwork(1.0))
    found = within.plan_within(model, graph, scores, x, budget="latency=8ms")
    assert 7.6 <= found.pruned.median_ms <= 8.0
    both = within.plan_within(model, graph, scores, x, budget="latency=90%,params=40%")
    assert both.plan.after.params <= 0.4 * both.plan.before.params
    with pytest.raises(ValueError, match="latency=50%"):
        within.plan_within(model, graph, scores, x, budget="macs=50%")


def test_what_cannot_be_met_is_said(monkeypatch: pytest.MonkeyPatch):
    model, x, graph = subject()
    scores = sc.score(graph, model)
    stop_the_clock(monkeypatch, Clockwork(9.0), timed=Clockwork(1.0))
    with pytest.raises(sc.BudgetError, match=r"latency=50%.* the least that can remain is latency"):
        within.plan_within(model, graph, scores, x, budget="latency=50%", min_units=200)
    monkeypatch.setattr(within, "TRIES", 1)
    with pytest.raises(sc.BudgetError, match=r"the nearest measured .* ask for latency="):
        within.plan_within(model, graph, scores, x, budget="latency=50%")


def test_prune_to_a_latency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    stop_the_clock(monkeypatch, Clockwork(1.1), timed=Clockwork(1.0))
    model, x, _ = subject()
    result = sc.prune(model, x, budget="latency=60%")
    assert result.before.latency_ms and result.after.latency_ms
    assert 0.57 < result.after.latency_ms / result.before.latency_ms <= 0.6
    assert result.proof is not None and list(tmp_path.iterdir())


@pytest.mark.slow
def test_on_the_real_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    torch.manual_seed(0)
    inner = [layer for _ in range(3) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    model = nn.Sequential(*inner, nn.Linear(1024, 4)).eval()
    result = sc.prune(model, torch.randn(64, 1024), budget="latency=60%")
    assert result.before.latency_ms and result.after.latency_ms
    assert result.after.latency_ms < 0.65 * result.before.latency_ms


def test_corrections_stay_between_too_slow_and_too_fast():
    mended = within._Corrections()
    mended.learn(1.2, over=True)
    assert mended.now == pytest.approx(1.2)
    mended.learn(0.7, over=False)  # a step: far too fast, and back would be where it was too slow
    assert 1.0 < mended.now < 1.2
    mended.learn(1.5, over=True)
    assert mended.now < 1.2
    upward = within._Corrections()
    upward.learn(1.0, over=True)  # nothing learnt, yet too slow
    assert upward.now > 1.0
