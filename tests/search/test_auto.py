"""Automatic pruning: met, not met and why, stopped and taken up again, held to its time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.core.errors import BudgetError, StorageError
from secateur.core.plan import Plan
from secateur.cost import latency
from secateur.cut import cut
from secateur.search.auto import auto
from secateur.search.auto_result import AutoResult
from secateur.search.auto_values import AutoData
from secateur.search.timing import Device
from secateur.storage import load
from secateur.train import FinetuneSettings, accuracy, finetune

FEATURES, CLASSES = 8, 3


class Small(nn.Module):
    """More hidden units than three classes need."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(FEATURES, 48), nn.Linear(48, 32), nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.c(self.b(self.a(x).relu()).relu())
        return logits


def split(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three overlapping clouds."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=draw)
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    return 1.5 * centres[y] + torch.randn(count, FEATURES, generator=draw), y


@pytest.fixture(scope="module")
def data() -> AutoData:
    return AutoData.of_tensors(split(192, 1), split(128, 2), split(128, 3), batch_size=32)


@pytest.fixture(scope="module")
def dense(data: AutoData) -> nn.Module:
    torch.manual_seed(0)
    model = Small()
    settings = FinetuneSettings(epochs=8, lr=0.1, progress=False)
    finetune(model, data.train, settings=settings, loss_fn=F.cross_entropy)
    return model.eval()


def short(model: nn.Module, data: AutoData, **given: Any) -> AutoResult:
    how = {"target": "macs=40%", "max_drop": 0.05, "steps": 2, "long_epochs": 2, "lr": 3e-3}
    training = FinetuneSettings(optimizer="adamw", progress=False)
    return auto(model, data, training=training, calibration=64, **{**how, **given})


def test_target_and_floor_are_met_and_proved(dense: nn.Module, data: AutoData, tmp_path: Path):
    lines: list[str] = []
    best: list[int] = []

    def look(line: str) -> None:
        """Each time the best so far is on disk as it is told."""
        lines.append(line)
        if "best so far" in line:
            told = json.loads((tmp_path / "run" / "best.json").read_text())
            model = load(tmp_path / "run" / "steps" / f"{told['step']:03d}" / "model", Small)
            assert data.validate(model) == told["metric"]
            best.append(told["step"])

    before = {name: t.clone() for name, t in dense.state_dict().items()}
    result = short(dense, data, run_dir=tmp_path / "run", tell=look, lr=None)
    assert result.met and result.ending == "met" and result.advice == ()
    assert result.verdict.startswith("met: macs ")
    assert result.shares["macs"] <= 0.4
    assert result.metric >= result.floor == pytest.approx(result.dense_metric - 0.05)
    assert [step.number for step in result.history] == [1, 2]
    assert 0.4 < result.history[0].shares["macs"] < 0.8
    assert all(torch.equal(t, dense.state_dict()[name]) for name, t in before.items())

    assert result.plan is not None
    assert [p.shape for p in cut(dense, result.plan).parameters()] == [
        p.shape for p in result.model.parameters()
    ]
    saved = load(tmp_path / "run" / "model", Small)
    assert data.test is not None
    assert data.validate(saved) == result.metric and data.test(saved) == result.test
    assert Plan.load(tmp_path / "run" / "plan.json") == result.plan
    assert json.loads((tmp_path / "run" / "proof.json").read_text())["groups_checked"] == 2
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert told == json.loads(json.dumps(result.to_json()))
    assert told["met"] and told["best_step"] == 2
    assert best == [1, 2] and not list((tmp_path / "run" / "under_way").iterdir())
    assert any(line.startswith("step 1: ") and "best so far" in line for line in lines)


def test_an_impossible_pair_ends_with_the_best_and_says_what_would_help(
    dense: nn.Module, data: AutoData
):
    result = short(dense, data, target="macs=1%", max_drop=0.0, attempts=4)
    assert not result.met and result.ending in ("floor", "attempts")
    assert result.verdict.startswith("not met (")
    assert result.metric >= result.floor == result.dense_metric
    assert any("a lower floor" in line for line in result.advice)
    failed = [step for step in result.history if not step.holds]
    assert failed and result.best not in failed
    if result.best is not None:
        assert any("a lower target" in line for line in result.advice)


def test_what_no_cut_can_reach_is_said_before_any_training(dense: nn.Module, data: AutoData):
    result = short(dense, data, target="params=5", max_drop=0.5)
    assert (result.met, result.ending, result.history) == (False, "unreachable", ())
    assert result.plan is None and result.metric == result.dense_metric
    assert "params" in result.advice[0]


def test_a_floor_above_the_dense_model_is_an_error(dense: nn.Module, data: AutoData):
    with pytest.raises(BudgetError, match="above the dense model's own"):
        short(dense, data, max_drop=None, floor=1.01)


def test_a_target_that_the_dense_model_meets_needs_no_step(dense: nn.Module, data: AutoData):
    result = short(dense, data, target="params=1M")
    assert result.met and result.plan is None and not result.history


class Stopped(BaseException):
    """In place of SIGKILL."""


def stop_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at this write, when the new file lies beside its place."""
    writes = iter(range(1, number))
    for name in ("replace", "rename"):
        rename = getattr(Path, name)

        def counted(self: Path, target: Any, rename: Any = rename) -> Any:
            if next(writes, None) is None:
                raise Stopped
            return rename(self, target)

        monkeypatch.setattr(Path, name, counted)


def test_stopped_anywhere_it_goes_on_and_ends_the_same(
    dense: nn.Module, data: AutoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = short(dense, data)
    stops = 0
    while True:
        with monkeypatch.context() as patch:
            stop_at(5 + 4 * stops, patch)  # later and later, so that each gets further
            try:
                result = short(dense, data, run_dir=tmp_path / "stopped")
                break
            except Stopped:
                stops += 1
    assert stops >= 2
    assert result.history == undisturbed.history
    assert result.plan is not None and result.plan == undisturbed.plan
    for ours, theirs in zip(
        result.model.state_dict().values(), undisturbed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_finished_run_is_read_and_another_is_refused(
    dense: nn.Module, data: AutoData, tmp_path: Path
):
    first = short(dense, data, run_dir=tmp_path)
    lines: list[str] = []
    again = short(dense, data, run_dir=tmp_path, tell=lines.append, time_limit="1h")
    assert lines == [] and again.to_json() == first.to_json()
    with pytest.raises(StorageError, match=r"other settings \(target\)"):
        short(dense, data, run_dir=tmp_path, target="macs=30%")
    with pytest.raises(StorageError, match="another dense model"):
        short(Small(), data, run_dir=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StorageError, match="no automatic pruning"):
        short(dense, data, run_dir=tmp_path / "other")


def test_the_time_limit_ends_it_and_more_time_goes_on(
    dense: nn.Module, data: AutoData, tmp_path: Path
):
    result = short(dense, data, run_dir=tmp_path, time_limit=0.05)
    assert not result.met and result.ending == "time"
    assert any("more time" in line for line in result.advice)
    more = short(dense, data, run_dir=tmp_path, time_limit="10m")
    assert more.met and more.history[: len(result.history)] == result.history


def test_a_rate_that_diverges_is_lowered(dense: nn.Module, data: AutoData):
    result = short(dense, data, lr=1e30, attempts=3, steps=1)
    assert result.history[0].metric is None and "learning rate" in result.history[0].note
    rates = [step.lr for step in result.history if step.lr]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[-1]


@pytest.mark.slow
def test_latency_is_measured_beside_the_dense_model(
    dense: nn.Module, data: AutoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    # what comes out is not looked at closely
    monkeypatch.setattr(latency, "ROUND_MS", 0.2)
    monkeypatch.setattr(latency, "SETTLE_MS", 0.0)
    result = short(
        dense, data, target="latency=99%,macs=60%", attempts=1, steps=1, device=Device(threads=1)
    )
    assert result.reachable is not None and result.reachable.conditions["threads"] == "1"
    if result.plan is not None:
        assert result.shares.keys() == {"latency", "macs"} and result.shares["macs"] <= 0.6
        assert result.where is not None
        assert {row.path for row in result.where.modules} == {"", "a", "b", "c"}
        assert result.plan.after.latency_ms is not None
    assert accuracy(result.model, data.train) > 0.5
