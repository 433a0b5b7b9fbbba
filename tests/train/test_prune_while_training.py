"""A model that shrinks while it trains: it learns, it costs less, and it is resumed bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from secateur.core.errors import BudgetError, ScoreError, TrainError
from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.graph import trace
from secateur.train import (
    Callbacks,
    Companion,
    FinetuneSettings,
    GradualPruner,
    GradualSettings,
    Logits,
    Shrinking,
    TensorBatches,
    Training,
    accuracy,
    distilled,
    finetune,
    prune_while_training,
)
from secateur.train.running_taylor import RunningTaylor

LOSS = nn.CrossEntropyLoss()
INPUTS = torch.zeros(1, 1, 8, 8)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(512, 10),
    )


@pytest.fixture
def data(digits: Any) -> TensorBatches:
    return TensorBatches(digits.train_x, digits.train_y, batch_size=64)


@pytest.mark.parametrize("criterion", ["running_taylor", "l2", "taylor", "random"])
def test_it_learns_and_costs_less(digits: Any, data: TensorBatches, criterion: str) -> None:
    model, test = network(), [(digits.test_x, digits.test_y)]
    shrunk = prune_while_training(
        model,
        data,
        example_inputs=INPUTS,
        pruning=GradualSettings("macs=30%", cuts=4, criterion=criterion),
        settings=FinetuneSettings(epochs=5, lr=0.05),
        loss_fn=LOSS,
        validate=lambda m: accuracy(m, test),
    )
    cuts = shrunk.cuts
    assert (
        accuracy(model, test)
        == shrunk.train.best_metric
        > (0.85 if criterion == "random" else 0.92)
    )
    assert [row.remaining <= row.asked for row in cuts.rows] == [True] * 4
    # 0.3 + 0.7 (1 - k/4)^3
    assert [row.asked for row in cuts.rows] == pytest.approx([0.5953125, 0.3875, 0.3109375, 0.3])
    assert cuts.rows[-1].remaining > 0.27
    assert cuts.samples == 5 * len(digits.train_x)
    by_hand = 0.0
    marks = [0, *(row.samples for row in cuts.rows), cuts.samples]
    for k, macs in enumerate([cuts.macs, *(row.macs for row in cuts.rows)]):
        by_hand += (marks[k + 1] - marks[k]) * macs
    assert cuts.macs_spent == by_hand < 0.6 * cuts.macs_dense
    step_by_step = network()
    for text in cuts.plans:
        step_by_step = cut(step_by_step, Plan.from_json(text))
    assert shrunk.plan is not None
    at_once = cut(network(), shrunk.plan)
    for mine, theirs in zip(step_by_step.parameters(), at_once.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [p.shape for p in at_once.parameters()] == [p.shape for p in model.parameters()]


class Killed(BaseException):
    """Stands for the end of the process."""


RUNNING = ("running_taylor", {"optimizer": "adamw", "lr": 0.01})
RANDOM = ("random", {"ema": 0.9, "accumulate": 2, "clip_norm": 1.0})


@pytest.mark.parametrize(
    ("case", "at"),
    [(RUNNING, (2, 17)), (RUNNING, (30,)), (RANDOM, (9, 15))],
    ids=["before and between cuts", "at the end", "random units, averaged weights"],
)
def test_killed_anywhere_ends_with_the_same_bits(
    digits: Any, tmp_path: Path, case: Any, at: tuple[int, ...]
) -> None:
    """Also when it is finished: the same call again trains nothing."""
    criterion, changes = case
    x, y = digits.train_x[:256], digits.train_y[:256]
    settings = FinetuneSettings(epochs=4, checkpoint_every=3, **changes)
    test = [(digits.test_x, digits.test_y)]

    def train(folder: Path | None, at: int | None = None) -> tuple[nn.Module, Any]:
        def on_step(training: Training) -> None:
            if training.step == at:
                raise Killed

        killer = Companion()
        killer.after_step_ = on_step  # type: ignore[method-assign]
        model = network()
        data = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
        shrunk = prune_while_training(
            model,
            data,
            example_inputs=INPUTS,
            pruning=GradualSettings("params=40%", cuts=4, criterion=criterion, end=0.6),
            settings=settings,
            loss_fn=LOSS,
            validate=lambda m: accuracy(m, test),
            checkpoint_dir=folder,
            companions=(killer,),
        )
        return model, shrunk

    undisturbed, expected = train(None)
    for moment in at:
        with pytest.raises(Killed):
            train(tmp_path, moment)
    torch.manual_seed(99)
    for again, shrunk in (train(tmp_path), train(tmp_path)):
        theirs = undisturbed.state_dict()
        assert all(torch.equal(v, theirs[name]) for name, v in again.state_dict().items())
        assert shrunk.cuts == expected.cuts
        assert shrunk.train == expected.train


def test_optimizer_objective_and_averages_follow_the_cuts(data: TensorBatches) -> None:
    model, teacher = network(), network(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    finetune(
        model,
        data,
        settings=FinetuneSettings(epochs=1, ema=0.9),
        objective=distilled(LOSS, teacher, terms=(Logits(),)),
        optimizer=optimizer,
        companions=(Shrinking(INPUTS, GradualSettings("params=50%", cuts=2)),),
    )
    held = optimizer.param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in model.parameters()]
    for parameter in held:
        assert optimizer.state[parameter]["momentum_buffer"].shape == parameter.shape
    assert sum(p.numel() for p in held) <= 0.5 * sum(p.numel() for p in teacher.parameters())


def test_running_scores_are_an_average_of_taylors(data: TensorBatches) -> None:
    model, running, memory = network().eval(), RunningTaylor(memory=4), 4
    graph, expected = trace(model, INPUTS), dict[str, Tensor]()
    for k, (x, y) in enumerate(data):
        if k == 3:
            break
        model.zero_grad()
        LOSS(model(x), y).backward()
        running.observe_(graph, model)
        for id, now in score(graph, model, criterion="taylor", data=[(x, y)], loss_fn=LOSS).items():
            before = expected.get(id, now)
            expected[id] = before * (1 - 1 / memory) + now / memory
    assert set(running.current()) == set(expected)
    for id, values in running.current().items():
        torch.testing.assert_close(values, expected[id], rtol=1e-4, atol=1e-8)


def test_a_loop_of_ones_own_and_its_state(digits: Any) -> None:
    def train(steps: range, pruner: GradualPruner, optimizer: torch.optim.Optimizer) -> None:
        for k in steps:
            x, y = digits.train_x[k * 32 : k * 32 + 32], digits.train_y[k * 32 : k * 32 + 32]
            optimizer.zero_grad()
            LOSS(pruner.model(x), y).backward()
            pruner.observe_()
            optimizer.step()
            pruner.step_(optimizer, samples=len(x))

    def begin() -> tuple[GradualPruner, torch.optim.Optimizer]:
        model = network().eval()  # no dropout: nothing is drawn
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        settings = GradualSettings("params=50%", cuts=3)
        return GradualPruner(model, INPUTS, settings=settings, total_steps=20), optimizer

    whole, optimizer = begin()
    train(range(20), whole, optimizer)
    first, optimizer = begin()
    train(range(8), first, optimizer)
    saved = first.model.state_dict(), optimizer.state_dict(), first.state()
    again, optimizer = begin()
    again.rebuild_(saved[2], optimizer)
    again.model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    again.load_state_(saved[2])
    train(range(8, 20), again, optimizer)
    theirs = whole.model.state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in again.model.state_dict().items())
    assert again.log() == whole.log()
    assert whole.done


def refuse(error: type[Exception], message: str, data: Any, **changes: Any) -> None:
    model = changes.pop("model", None) or network()
    arguments = {
        "loss_fn": LOSS,
        "settings": FinetuneSettings(epochs=1, schedule="constant"),
        **changes,
    }
    pruning = arguments.pop("pruning", GradualSettings())
    with pytest.raises(error, match=message):
        prune_while_training(model, data, example_inputs=INPUTS, pruning=pruning, **arguments)


def test_what_cannot_be_pruned_says_why(data: TensorBatches, digits: Any) -> None:
    frozen = network()
    frozen[0].requires_grad_(False)
    frozen[1].requires_grad_(False)
    frozen[4].weight.requires_grad_(False)
    refuse(ScoreError, "no gradient reaches group '0.weight.*requires_grad_", data, model=frozen)
    refuse(
        BudgetError, "min_units", data, pruning=GradualSettings("macs=1%", options={"min_units": 8})
    )
    refuse(
        ScoreError,
        "needs gradients, so it needs data|needs a loss",
        data,
        loss_fn=None,
        objective=lambda m, b: LOSS(m(b[0]), b[1]),
        pruning=GradualSettings(criterion="taylor"),
    )

    class Endless:
        def __iter__(self) -> Any:
            return iter([(digits.train_x[:16], digits.train_y[:16])])

    refuse(TrainError, "how many steps the training has", Endless())
    wrong = [(digits.train_x[:16], digits.train_y[:16] + 3)]
    refuse(TrainError, "labels run from 3 to 12", wrong)
    pruner = GradualPruner(network(), INPUTS, settings=GradualSettings(), total_steps=4)
    with pytest.raises(ScoreError, match="no gradients were seen before the first cut"):
        pruner.step_()


def test_shares_are_of_the_dense_model_however_often_it_is_cut(data: TensorBatches) -> None:
    model = network()
    options = {"keep": {"0": 0.75, "4": 0.25}, "multiple_of": 4}
    pruning = GradualSettings("params=35%", cuts=5, criterion="l2", options=options)
    finetune(
        model,
        data,
        settings=FinetuneSettings(epochs=1),
        loss_fn=LOSS,
        companions=(Shrinking(INPUTS, pruning),),
    )
    assert model[0].out_channels >= 12
    assert 8 <= model[4].out_channels < 16
    too_deep = GradualSettings("params=15%", cuts=3, criterion="l2", options=options)
    with pytest.raises(BudgetError, match="keep"):
        prune_while_training(
            network(),
            data,
            example_inputs=INPUTS,
            pruning=too_deep,
            settings=FinetuneSettings(epochs=1),
            loss_fn=LOSS,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "unknown schedule 'linear'; there are: geometric, cubic"),
        ({"begin": 0.6}, "begin=0.6 and end=0.5 are shares of all steps"),
        ({"cuts": 0}, "at least 1"),
        ({"budget": "macs=50%,params=50%"}, "toward one limit"),
        ({"budget": "half"}, "is not understood"),
    ],
)
def test_wrong_settings(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradualSettings(**changes)


def test_on_step_sees_the_cut_model(data: TensorBatches) -> None:
    widths: list[int] = []
    model = network()
    finetune(
        model,
        data,
        settings=FinetuneSettings(epochs=1),
        loss_fn=LOSS,
        companions=(Shrinking(INPUTS, GradualSettings("params=25%", cuts=2, criterion="l2")),),
        callbacks=Callbacks(on_step=lambda step, loss: widths.append(model[4].out_channels)),
    )
    assert widths == sorted(widths, reverse=True)
    assert (len(widths), len(set(widths)), max(widths) < 32) == (23, 2, True)
