"""Sensitivities measured: equal to masking by hand, resumed, left unchanged; plans made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur as sc
from secateur.core.errors import PlanMismatchError, ScoreError
from secateur.core.sensitivities import Sensitivities
from secateur.cut.masked import masked
from secateur.search.sensitivity import estimate_sensitivities, measure_sensitivities
from secateur.train import accuracy

Subject = tuple[nn.Module, sc.Graph, list[tuple[torch.Tensor, torch.Tensor]]]


class Net(nn.Module):
    """A residual block over a stem, norms, and heads that do not matter alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + 0.2 * self.outer(self.norm(self.inner(x)).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    model = Net().eval()
    x = torch.randn(48, 1, 6, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, sc.trace(model, x[:2]), [(x[:32], y[:32]), (x[32:], y[32:])]


def test_the_loss_is_that_of_the_masked_model(subject: Subject) -> None:
    model, graph, data = subject
    scores = sc.score(graph, model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = measure_sensitivities(
        model,
        graph,
        scores,
        data=data,
        loss_fn=F.cross_entropy,
        metric=lambda cut: accuracy(cut, data),
        depths=(0.5, 0.25),
    )
    assert set(found.curves) == {"stem.weight[0]", "inner.weight[0]"}
    assert found.metric == 1.0  # the labels are the model's own answers
    for id, curve in found.curves.items():
        assert curve.size == graph.group(id).size
        assert curve.removed == (curve.size // 4, curve.size // 2)
        for count, loss, metric in zip(curve.removed, curve.loss, curve.metric or (), strict=True):
            keep = {id: 1 - count / curve.size}
            zeroed = masked(model, sc.plan(graph, scores, keep=keep))
            expected = sum(F.cross_entropy(zeroed(x), y).item() * len(y) / 48 for x, y in data)
            assert loss == pytest.approx(expected, rel=1e-5)
            assert metric == accuracy(zeroed, data)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_what_is_finished_is_not_measured_again(subject: Subject, tmp_path: Path) -> None:
    model, graph, data = subject
    scores = sc.score(graph, model)
    seen: list[tuple[str, int, int]] = []

    class Stopped(Exception):
        pass

    def stop(id: str, done: int, all: int) -> None:
        seen.append((id, done, all))
        raise Stopped

    how = {"data": data, "loss_fn": F.cross_entropy, "path": tmp_path / "s.json"}
    with pytest.raises(Stopped):
        measure_sensitivities(model, graph, scores, progress=stop, **how)
    assert seen[0][1:] == (1, 2)
    begun = Sensitivities.load(tmp_path / "s.json")
    assert set(begun.curves) == {seen[0][0]}
    first = measure_sensitivities(model, graph, scores, **how)
    assert first.curves[seen[0][0]] == begun.curves[seen[0][0]] and len(first.curves) == 2
    # another order of units, other depths and another model are other sensitivities
    turned = {id: -values for id, values in scores.items()}
    assert measure_sensitivities(model, graph, turned, **how) != first
    with torch.no_grad():
        model.head.weight.mul_(3.0)
    assert measure_sensitivities(model, graph, scores, **how).loss != first.loss


def test_data_that_can_be_read_once_and_losses_of_the_model(subject: Subject) -> None:
    model, graph, data = subject
    scores = sc.score(graph, model)
    once = measure_sensitivities(
        model, graph, scores, data=iter(data), loss_fn=F.cross_entropy, depths=(0.5,)
    )
    again = measure_sensitivities(
        model, graph, scores, data=data, loss_fn=F.cross_entropy, depths=(0.5,)
    )
    assert once == again


def test_what_training_wins_back_does_not_count(subject: Subject) -> None:
    model, graph, data = subject
    scores = sc.score(graph, model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    widths: list[int] = []

    def train(cut: nn.Module) -> None:
        optimizer = torch.optim.SGD(cut.parameters(), lr=0.2)
        for _ in range(6):
            optimizer.zero_grad()
            sum(F.cross_entropy(cut(x), y) for x, y in data).backward()
            optimizer.step()
        widths.append(int(cut.inner.weight.abs().sum((1, 2, 3)).count_nonzero()))

    how = {"data": data, "loss_fn": F.cross_entropy, "depths": (0.5,)}
    plain = measure_sensitivities(model, graph, scores, **how)
    won_back = measure_sensitivities(model, graph, scores, recover=train, **how)
    assert won_back.loss < plain.loss  # the whole model is trained as well
    assert widths == [12, 12, 6]  # whole, without half of the stem, without half of itself
    for id, curve in won_back.curves.items():
        assert curve.loss[0] < plain.curves[id].loss[0]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_what_makes_no_sense_is_refused(subject: Subject) -> None:
    model, graph, data = subject
    scores = sc.score(graph, model)
    with pytest.raises(ValueError, match=r"depths=\(0\.5, 1\.0\)"):
        measure_sensitivities(model, graph, scores, data=data, depths=(0.5, 1.0))
    with pytest.raises(PlanMismatchError, match="another model"):
        measure_sensitivities(nn.Linear(2, 2), graph, scores, data=data)
    with pytest.raises(ScoreError, match="loss of the whole model is not a number"):
        measure_sensitivities(
            model, graph, scores, data=data, loss_fn=lambda out, y: out.sum() * torch.nan
        )


def test_an_estimate_adds_scores_up(subject: Subject) -> None:
    _, graph, _ = subject
    scores = {group.id: torch.arange(float(group.size)) for group in graph.free}
    found = estimate_sensitivities(graph, scores, loss=2.0, depths=(0.5,))
    assert found.curves["stem.weight[0]"].loss == (2.0 + 0 + 1 + 2 + 3,)


def test_plans_spare_what_is_sensitive(subject: Subject) -> None:
    """The inner width adds a fifth of what the stem's does, so that it goes first."""
    model, graph, data = subject
    scores = sc.score(graph, model)
    found = measure_sensitivities(model, graph, scores, data=data, loss_fn=F.cross_entropy)
    losses = {}
    for selector in ("uniform", "knapsack"):
        plan = sc.plan(graph, scores, budget="macs=40%", selector=selector, sensitivities=found)
        assert plan.after.macs <= 0.4 * plan.before.macs
        assert plan.settings["sensitivities"] == found.hash
        losses[selector] = found.price({id: len(kept) for id, kept in plan.keep.items()})
        assert sc.Plan.from_json(plan.to_json()) == plan
    assert losses["knapsack"] < losses["uniform"]
    short = sc.prune(
        model,
        data[0][0],
        budget="macs=40%",
        selector="knapsack",
        sensitivities=found,
    )
    assert short.plan.keep == plan.keep
    with pytest.raises(ValueError, match="sensitivities are of units"):
        sc.plan(graph, scores, blocks=1, keep=0.5, sensitivities=found)
