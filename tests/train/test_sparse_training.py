"""Penalties by a naive gradient, growing sparsity on digits, soft pruning, and what is then cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.core.graph import Graph
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.train import (
    L1,
    Callbacks,
    Companion,
    FinetuneSettings,
    GroupLasso,
    GrowingPenalty,
    SoftPruning,
    TensorBatches,
    Training,
    accuracy,
    finetune,
    reestimate_norms_,
)

LOSS = nn.CrossEntropyLoss()
INPUTS = torch.zeros(1, 1, 8, 8)


class Joined(nn.Module):
    """An addition couples two layers, a concatenation gives one dimension several groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 6, 3, padding=1)
        self.b = nn.Conv2d(1, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(10 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x) + self.b(x))
        z: Tensor = self.head(torch.cat([y, torch.relu(self.norm(self.c(y)))], 1).flatten(1))
        return z


@pytest.fixture
def data(digits: Any) -> TensorBatches:
    return TensorBatches(digits.train_x, digits.train_y, batch_size=64)


def joined() -> tuple[nn.Module, Graph]:
    torch.manual_seed(3)
    model = Joined()
    return model, trace(model, INPUTS)


def added_gradients(companion: Companion, model: nn.Module) -> dict[str, Tensor]:
    """What a companion adds to gradients that are zero."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), total_steps=9)
    companion.begin_(training)
    companion.after_backward_(training)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def unit_weights(model: nn.Module, graph: Graph, id: str, unit: int) -> list[Tensor]:
    """Everything that goes with a unit, found by cutting it away from a copy."""
    sizes = {"a.weight[0]": 6, "c.weight[0]": 4}
    parts = {"a.weight[0]": ("a", "b"), "c.weight[0]": ("c",)}[id]
    found = [
        t[unit] for name in parts for t in (getattr(model, name).weight, getattr(model, name).bias)
    ]
    start = 64 * (unit if id == "a.weight[0]" else sizes["a.weight[0]"] + unit)
    found.append(model.head.weight[:, start : start + 64])
    if id == "a.weight[0]":
        found.append(model.c.weight[:, unit])
    else:
        found += [model.norm.weight[unit], model.norm.bias[unit]]
    return found


def test_group_lasso_is_the_gradient_of_its_formula() -> None:
    model, graph = joined()
    assert {group.id: group.size for group in graph.free} == {"a.weight[0]": 6, "c.weight[0]": 4}
    added = added_gradients(GroupLasso(graph, 0.01), model)
    penalty = torch.zeros(())
    for id, units in (("a.weight[0]", 6), ("c.weight[0]", 4)):
        for unit in range(units):
            weights = torch.cat([w.flatten() for w in unit_weights(model, graph, id, unit)])
            penalty = penalty + 0.01 * weights.numel() ** 0.5 * weights.norm()
    model.zero_grad()
    penalty.backward()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(added[name], expected, rtol=1e-4, atol=1e-7)


def test_l1_and_growing_penalty_by_hand() -> None:
    model, graph = joined()
    added = added_gradients(L1(0.5), model)
    assert torch.equal(added["a.weight"], 0.5 * model.a.weight.sign())
    assert not added["a.bias"].any()
    plan = make_plan(graph, score(graph, model), keep=0.5)
    growing = GrowingPenalty(graph, plan, increase=0.1, every=2, ceiling=0.25)
    strengths = []
    for _ in range(7):
        strengths.append(growing.strength)
        growing.steps += 1
    assert strengths == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.25, 0.25, 0.25])
    added = added_gradients(growing, model)
    kept = list(plan.keep["a.weight[0]"])
    gone = [unit for unit in range(6) if unit not in kept]
    torch.testing.assert_close(added["b.weight"][gone], 0.1 * model.b.weight[gone])
    assert not added["b.weight"][kept].any()
    # a weight between two units that go belongs to both
    torch.testing.assert_close(
        added["c.weight"][plan.keep["c.weight[0]"][0], gone],
        0.1 * model.c.weight[plan.keep["c.weight[0]"][0], gone],
    )


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


class Small(Companion):
    """After each epoch the share of units that are small beside the largest of their group."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.shares = graph, list[float]()

    def after_epoch_(self, training: Training) -> None:
        scores = score(self.graph, training.model, criterion="l2")
        small = torch.cat([s < 0.1 * s.max() for s in scores.values()])
        self.shares.append(float(small.double().mean()))


def test_group_lasso_makes_units_vanish_that_are_then_really_cut(
    digits: Any, data: TensorBatches
) -> None:
    model, test = network(), [(digits.test_x, digits.test_y)]
    graph = trace(model, INPUTS)
    small, plain = Small(graph), Small(graph)
    settings = FinetuneSettings(epochs=8, lr=0.05, schedule="linear")
    companions = (GroupLasso(graph, 4e-3), small)
    finetune(model, data, settings=settings, loss_fn=LOSS, companions=companions)
    finetune(network(), data, settings=settings, loss_fn=LOSS, companions=(plain,))
    assert plain.shares[-1] == 0
    assert small.shares[0] < small.shares[3] <= small.shares[-1]
    assert small.shares[-1] > 0.4
    before = accuracy(model, test)
    scores = score(graph, model, criterion="l2")
    largest = max(float(s.max()) for s in scores.values())
    lean = cut(model, make_plan(graph, scores, threshold=0.05 * largest))
    assert sum(p.numel() for p in lean.parameters()) < 0.6 * sum(
        p.numel() for p in model.parameters()
    )
    assert before > 0.93
    assert accuracy(lean, test) > before - 0.01


def test_a_growing_penalty_makes_a_cut_harmless(digits: Any, data: TensorBatches) -> None:
    test, settings = [(digits.test_x, digits.test_y)], FinetuneSettings(epochs=4, lr=0.05)
    model = network()
    finetune(model, data, settings=settings, loss_fn=LOSS)
    graph = trace(model, INPUTS)
    plan = make_plan(graph, score(graph, model), keep=0.4)
    at_once = accuracy(cut(model, plan), test)
    growing = GrowingPenalty(graph, plan, increase=0.05, every=2, ceiling=2.0)
    finetune(model, data, settings=settings, loss_fn=LOSS, companions=(growing,))
    dense, after = accuracy(model, test), accuracy(cut(model, plan), test)
    assert at_once < dense - 0.1
    assert after > dense - 0.02
    assert dense > 0.93


def test_soft_pruning_zeroes_lets_grow_back_and_is_cut(digits: Any, data: TensorBatches) -> None:
    model, test = network(), [(digits.test_x, digits.test_y)]
    graph = trace(model, INPUTS)
    soft, zeroed, kept = SoftPruning(graph, keep=0.5), list[int](), list[set[int]]()

    class Watch(Companion):
        def after_epoch_(self, training: Training) -> None:
            zeroed.append(int((model[4].weight.flatten(1).abs().sum(1) == 0).sum()))
            kept.append(set(soft.plan.keep["4.weight[0]"]))

        def after_step_(self, training: Training) -> None:
            if training.epoch == 1:
                assert (model[4].weight.flatten(1).abs().sum(1) != 0).all()  # they grow back

    finetune(
        model,
        data,
        settings=FinetuneSettings(epochs=5, lr=0.1),
        loss_fn=LOSS,
        companions=(soft, Watch()),
    )
    assert zeroed == [16] * 5
    assert len(set(map(frozenset, kept))) > 1
    lean = cut(model, soft.plan)
    assert lean[4].out_channels == 16
    reestimate_norms_(lean, data)
    assert accuracy(lean, test) > 0.85  # without any training after the cut


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_and_resumed_ends_with_the_same_bits(digits: Any, tmp_path: Path) -> None:
    data = TensorBatches(digits.train_x[:128], digits.train_y[:128], batch_size=16)

    def train(folder: Path | None, at: int | None = None) -> tuple[nn.Module, str]:
        def on_step(step: int, loss: float) -> None:
            if step == at:
                raise Killed

        model = network()
        graph = trace(model, INPUTS)
        plan = make_plan(graph, score(graph, model), keep=0.5)
        soft = SoftPruning(graph, budget="macs=50%")
        finetune(
            model,
            data,
            settings=FinetuneSettings(epochs=3, lr=0.05, checkpoint_every=3),
            loss_fn=LOSS,
            checkpoint_dir=folder,
            callbacks=Callbacks(on_step=on_step),
            companions=(GroupLasso(graph, 1e-3), GrowingPenalty(graph, plan, every=2), soft),
        )
        return model, soft.plan.to_json()

    undisturbed, plan = train(None)
    with pytest.raises(Killed):
        train(tmp_path, at=13)
    again, theirs = train(tmp_path)
    expected = undisturbed.state_dict()
    assert all(torch.equal(v, expected[name]) for name, v in again.state_dict().items())
    assert theirs == plan


def test_a_lasso_follows_a_cut_in_the_middle(data: TensorBatches) -> None:
    model, graph = joined()
    lasso = GroupLasso(graph, 0.01)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), 9, companions=(lasso,))
    training.cut_(make_plan(graph, score(graph, model), keep=0.5))
    fresh = GroupLasso(trace(model, INPUTS), 0.01)
    mine = added_gradients_without_beginning(lasso, training)
    theirs = added_gradients_without_beginning(fresh, training)
    assert model.a.out_channels == 3
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def added_gradients_without_beginning(
    companion: Companion, training: Training
) -> dict[str, Tensor]:
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    companion.after_backward_(training)
    return {n: p.grad.clone() for n, p in training.model.named_parameters() if p.grad is not None}


def test_what_is_refused(data: TensorBatches) -> None:
    model, graph = joined()
    settings: Any = {"settings": FinetuneSettings(epochs=1), "loss_fn": LOSS}
    with pytest.raises(TrainError, match="the penalty's graph is another model's; trace this one"):
        finetune(network(), data, companions=(GroupLasso(graph, 1.0),), **settings)
    for wrong in (lambda: L1(0.0), lambda: GroupLasso(graph, -1.0)):
        with pytest.raises(ValueError, match="strength must be positive"):
            wrong()
    other = trace(network(), INPUTS)
    plan = make_plan(other, score(other, network()), keep=0.5)
    with pytest.raises(TrainError, match="plan over units that was made for this graph"):
        GrowingPenalty(graph, plan)
    with pytest.raises(TrainError, match="no epoch has ended yet"):
        _ = SoftPruning(graph, keep=0.5).plan
    own = make_plan(graph, score(graph, model), keep=0.5)
    for companion in (GrowingPenalty(graph, own), SoftPruning(graph, keep=0.5)):
        training = Training(
            joined()[0], torch.optim.SGD([nn.Parameter(torch.ones(1))]), 1, companions=(companion,)
        )
        with pytest.raises(TrainError, match="one or the other"):
            training.cut_(own)
